"""The verbs. Each reads its parameters, records what it does, and leaves every judgement to the verification."""
