"""`python -m cofinal` lists the commands; `python -m cofinal COMMAND ...` runs one without its console script."""

import sys

from .pipeline.cli import COMMANDS
from .pipeline.console import print_message, print_result

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    for name, (_, purpose) in COMMANDS.items():
        print_result(f"{name:<18} {purpose}")
    print_result("COMMAND --help has the options and examples")
elif sys.argv[1] in COMMANDS:
    run, _ = COMMANDS[sys.argv[1]]
    sys.argv = sys.argv[1:]
    run()
else:
    print_message(f"error: unknown command {sys.argv[1]!r}; known are {', '.join(COMMANDS)}")
    raise SystemExit(2)
