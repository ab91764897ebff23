"""The `sealflow` command."""


def main() -> None:
    """Run the command line."""
    from sealflow.cli.app import run

    run()
