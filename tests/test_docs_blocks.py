"""No block of code stands in a page that nobody runs: each is in this account, with the test that runs or checks it."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys

import pytest
from blocks import PAGES, Block, block, blocks_of
from serving import DEADLINE, ROOT

HOWTO, SERVED, DEPLOYMENT = "test_docs_howto.py", "test_docs_served.py", "test_docs_deployment.py"
MIGRATION = "test_docs_migration.py"
HERE = "test_docs_blocks.py"

#: The name of a block, or page and language of those that have none, and the test that runs or checks it.
ACCOUNT = {
    "readme-install": f"{HERE}::test_what_is_to_be_installed_can_be",
    "readme-app": f"{HOWTO}::test_the_first_ten_lines_are_an_echo",
    "readme-run": f"{SERVED}::test_gunicorn_serves_the_first_ten_lines",
    "readme-try": f"{SERVED}::test_what_is_typed_comes_back",
    "readme-chat": f"{HERE}::test_the_two_commands_are_those_that_are_run",
    "readme-test": f"{HERE}::test_the_two_commands_are_those_that_are_run",
    "index-install": f"{HERE}::test_what_is_to_be_installed_can_be",
    "index-app": f"{HOWTO}::test_the_first_ten_lines_are_an_echo",
    "index-run": f"{SERVED}::test_gunicorn_serves_the_first_ten_lines",
    "index-try": f"{SERVED}::test_what_is_typed_comes_back",
    "tutorial-install": f"{HERE}::test_what_is_to_be_installed_can_be",
    "tutorial-1": f"{SERVED}::test_the_first_step_echoes_in_the_console",
    "tutorial-run": f"{SERVED}::test_the_first_step_echoes_in_the_console",
    "tutorial-console": f"{SERVED}::test_the_first_step_echoes_in_the_console",
    "tutorial-2": f"{SERVED}::test_the_second_step_has_names",
    "tutorial-page": f"{SERVED}::PAGE",
    "tutorial-script": f"{SERVED}::PAGE",
    "tutorial-3": f"{SERVED}::test_from_the_third_step_on_everybody_hears_everybody",
    "tutorial-4": f"{SERVED}::test_from_the_third_step_on_everybody_hears_everybody",
    "tutorial-workers": f"{SERVED}::test_four_workers_are_one_chat",
    "tutorial-announce": f"{SERVED}::test_four_workers_are_one_chat",
    "contract-handler": f"{HOWTO}::test_the_handler_of_the_contract_is_a_chat",
    "options-once": f"{HOWTO}::test_options_made_once_hold_for_each_view",
    "auth-session": f"{HOWTO}::test_who_is_logged_in_is_let_in",
    "auth-flask-login": f"{HOWTO}::test_who_is_logged_in_is_let_in",
    "auth-token": f"{HOWTO}::test_a_token_in_a_header_or_a_ticket_lets_in",
    "checking-run": "test_doctor.py::test_the_page_is_true",
    "checking-says": "test_doctor.py::test_the_page_is_true",
    "compression-deflate": f"{HOWTO}::test_deflate_has_knobs",
    "database-app": f"{HOWTO}::test_a_session_lives_for_one_callback",
    "deployment-gunicorn": f"{DEPLOYMENT}::test_gunicorn_takes_its_configuration",
    "deployment-check": f"{DEPLOYMENT}::test_gunicorn_takes_its_configuration",
    "deployment-nginx": f"{DEPLOYMENT}::test_nginx_takes_its_configuration",
    "deployment-systemd": f"{DEPLOYMENT}::test_systemd_takes_its_unit",
    "deploys-configure": f"{HOWTO}::test_what_is_configured_is_what_holds",
    "deploys-serve": f"{SERVED}::test_pywsgi_serves_and_says_goodbye",
    "kubernetes-deployment": f"{DEPLOYMENT}::kubernetes",
    "kubernetes-ready": f"{HOWTO}::test_readiness_asks_for_redis",
    "presence-app": f"{HOWTO}::test_presence_tells_who_comes_and_goes",
    "push-redis": f"{SERVED}::test_a_script_reaches_the_page",
    "push-app": f"{SERVED}::test_a_script_reaches_the_page",
    "push-celery": f"{SERVED}::test_a_celery_task_reaches_the_page",
    "push-celery-run": f"{SERVED}::test_a_celery_task_reaches_the_page",
    "push-cron": f"{SERVED}::test_a_script_reaches_the_page",
    "push-cron-run": f"{SERVED}::test_a_script_reaches_the_page",
    "reconnecting-app": f"{SERVED}::test_a_page_misses_nothing_over_a_deploy",
    "reconnecting-js": f"{SERVED}::test_a_page_misses_nothing_over_a_deploy",
    "reconnecting-html": f"{SERVED}::test_a_page_misses_nothing_over_a_deploy",
    "testing-app": f"{HOWTO}::test_the_tests_of_the_page_pass",
    "testing-tests": f"{HOWTO}::test_the_tests_of_the_page_pass",
    "tls-gunicorn": f"{SERVED}::test_gunicorn_with_tls",
    "tls-pywsgi": f"{SERVED}::test_pywsgi_serves_and_says_goodbye",
    "workers-run": f"{SERVED}::test_four_workers_are_one_chat",
    "pubsub-app": f"{HOWTO}::test_the_chat_of_the_page_on_pubsub",
    "pubsub-since": f"{HOWTO}::test_who_comes_back_asks_for_what_was_missed",
    "pubsub-outside": f"{SERVED}::test_a_shell_reaches_the_lobby",
    "contributing-one": f"{HERE}::test_what_is_said_about_make_is_so",
    "contributing-many": f"{HERE}::test_what_is_said_about_make_is_so",
    "migration-behind": f"{MIGRATION}::test_the_function_behind_the_view",
    "migration-main-diff": f"{MIGRATION}::test_a_program_that_serves_itself",
    "migration-gevent-diff": f"{MIGRATION}::DIFFS",
    "migration-gevent": f"{MIGRATION}::test_the_chat_after",
    "migration-gevent-run": f"{MIGRATION}::test_the_commands_are_those_that_are_run",
    "migration-sockets-diff": f"{MIGRATION}::DIFFS",
    "migration-sockets": f"{MIGRATION}::test_the_routes_of_sockets",
    "migration-sockets-run": f"{MIGRATION}::test_the_commands_are_those_that_are_run",
    "migration-sock-diff": f"{MIGRATION}::DIFFS",
    "migration-sock": f"{MIGRATION}::test_the_application_of_flask_sock",
    "migration-blocking": f"{MIGRATION}::CHATS",
    "migration-callbacks": f"{MIGRATION}::CHATS",
    "migration-mailbox": f"{MIGRATION}::test_a_function_that_waits_for_two_things",
    "migration-handlers": "test_frameworks.py::server",
    "migration-django": "test_frameworks.py::PROGRAMS",
    "migration-falcon": "test_frameworks.py::PROGRAMS",
    "migration-bottle": "test_frameworks.py::PROGRAMS",
    "migration-pyramid": "test_frameworks.py::PROGRAMS",
    "migration-wsgi": "test_frameworks.py::PROGRAMS",
    "errors-curl": f"{SERVED}::test_who_asks_as_a_browser_does_is_told_why",
    "docs/pubsub.rst: text": "test_pubsub_redis.py::test_users_with_few_rights",
    "docs/proxies.rst: nginx": "test_proxies.py::test_a_proxy_as_documented_is_all_it_takes",
    "docs/proxies.rst: haproxy": "test_proxies.py::test_a_proxy_as_documented_is_all_it_takes",
    "docs/security.rst: python": "test_docs_security.py::Samples",
    "docs/telemetry.rst: python": "test_docs_telemetry.py::serving",
    "docs/benchmarks.rst: text": f"{HERE}::test_what_made_the_figures_is_there",
}
EVERY = [found for page in PAGES for found in blocks_of(page)]


def key_of(found: Block) -> str:
    """Where it is in the account."""
    return found.name or f"{found.page}: {found.language}"


def test_every_block_is_in_the_account() -> None:
    unknown = [f"{found.page}:{found.line}: {key_of(found)}" for found in EVERY if key_of(found) not in ACCOUNT]
    assert not unknown, "nobody runs these blocks; write a test, and enter it in ACCOUNT:\n" + "\n".join(unknown)


def test_names_are_given_once() -> None:
    names = [found.name for found in EVERY if found.name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("key", ACCOUNT)
def test_the_account_is_true(key: str) -> None:
    """The block is there, and the test's source names it."""
    assert key in map(key_of, EVERY), "there is no such block any more"
    file, _, name = ACCOUNT[key].partition("::")
    source = (ROOT / "tests" / file).read_text()
    (found,) = [part for part in ast.parse(source).body if name in _defines(part)]
    said = {node.value for node in ast.walk(found) if isinstance(node, ast.Constant)}
    assert key.startswith("docs/") or key in said, f"{ACCOUNT[key]} does not speak of {key}"


def _defines(part: ast.stmt) -> set[str]:
    if isinstance(part, ast.Assign):
        return {ast.unparse(target) for target in part.targets}
    return {getattr(part, "name", "")}


def test_doctests_are_run_by_sphinx() -> None:
    """`test_docs_build` runs them; here is what it looks at."""
    assert [page for page in PAGES if re.search(r"^ *>>> ", page.read_text(), re.MULTILINE)]


def test_links_of_the_readme_lead_somewhere() -> None:
    found = re.findall(r"<([^>`]+)>`_", (ROOT / "README.rst").read_text())
    local = [link for link in found if "://" not in link]
    assert len(local) > 10 and [link for link in local if not (ROOT / link).is_file()] == []


# What is checked rather than run: it installs from the network, or is the test command itself.


def extras() -> set[str]:
    """Those of this distribution."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return set(parser["options.extras_require"])


@pytest.mark.parametrize("name", ["readme-install", "index-install", "tutorial-install"])
def test_what_is_to_be_installed_can_be(name: str) -> None:
    (asked,) = re.findall(r"pip install '?websock-gevent\[([a-z,]+)\]'?$", block(name).text, re.MULTILINE)
    assert set(asked.split(",")) <= extras()
    subprocess.run(["bash", "-n", "-c", block(name).text], check=True, timeout=DEADLINE)


def test_the_two_commands_are_those_that_are_run() -> None:
    """The chat's tests serve what the README's first command serves; the gate calls what its second command is."""
    install, serve = block("readme-chat").text.strip().split(" && ")
    assert install == "pip install -e '.[example]'" and "example" in extras()
    chat = re.findall(r'^CHAT = "(.+)"$', (ROOT / "tests" / "test_chat_browser.py").read_text(), re.MULTILINE)
    assert serve == f"gunicorn -k gevent '{chat[0]}'"
    assert (ROOT / ".ci" / "run").read_text().endswith(f"\n{block('readme-test').text}")


@pytest.mark.parametrize("name", ["contributing-one", "contributing-many"])
def test_what_is_said_about_make_is_so(name: str) -> None:
    """Each target and each file that the text names is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block(name).text.splitlines():
        words = line.partition("#")[0].split()
        if words[0] == "make":
            assert words[1] in targets, line
        else:
            assert words[0] == ".venv/bin/pytest" and (ROOT / words[1]).is_file(), line


def test_what_made_the_figures_is_there() -> None:
    """The command that a run notes; its options are the program's."""
    (found,) = blocks_of(ROOT / "docs" / "benchmarks.rst")
    words = found.text.replace("\\\n", " ").split()
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, words[1], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert all(word in done.stdout for word in words if word.startswith("--"))
