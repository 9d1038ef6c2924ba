import json
import subprocess
import sys

from onionrelay.apps.output import Output


def test_a_person_reads_text_and_a_script_json(capsys):
    for as_json in (False, True):
        output = Output(as_json=as_json)
        output.event("id", "the text", node_id="onr1")
        output.event("silent", answer=1)
    text, *objects = capsys.readouterr().out.splitlines()
    assert text == "the text"
    assert [json.loads(line) for line in objects] == [
        {"event": "id", "node_id": "onr1"},
        {"event": "silent", "answer": 1},
    ]


def test_a_nodes_own_events_pass(capsys):
    Output(as_json=True).pass_on({"event": "attached", "final": 1})
    Output(as_json=False).pass_on({"event": "attached", "final": 1})
    Output(as_json=False).pass_on({"event": "notice", "text": "mind this"})
    assert capsys.readouterr().out.splitlines() == ['{"event": "attached", "final": 1}', "mind this"]


def test_errors_go_to_standard_error_or_into_the_events(capsys):
    Output(as_json=False).error("NoPath", "no path", 5)
    Output(as_json=True).error("NoPath", "no path", 5)
    Output(as_json=True, to_stderr=True).error("NoPath", "no path", 5)
    out, err = capsys.readouterr()
    event = {"event": "error", "error": "NoPath", "message": "no path", "exit_code": 5}
    assert json.loads(out) == event
    sentence, on_stderr = err.splitlines()
    assert sentence == "onionrelay: no path"
    assert json.loads(on_stderr) == event


def test_a_reader_that_leaves_ends_the_process_as_if_asked_to():
    program = (
        "import signal, sys\n"
        "from onionrelay.apps.output import Output\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('ending', file=sys.stderr), sys.exit(0)))\n"
        "sys.stdin.readline()\n"
        "while True: Output(as_json=True).event('again', text='x')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(10) == 0
        assert process.stderr.read() == b"ending\n"
