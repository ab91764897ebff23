"""The `sealflow` command."""


def main() -> None:
    """Run the command line."""
    from sealflow.collector import end_without_collection, rare_collection

    end_without_collection()
    with rare_collection():
        from sealflow.cli.app import run

    run()
