"""`python -m perceiver_deploy.cli`, the same as `perceiver-deploy`."""

from perceiver_deploy.cli.main import main

main(prog_name="perceiver-deploy")
