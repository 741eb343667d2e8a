# terminal.py PROGRAM ARGUMENT...: runs the program on a new terminal, by the script on stdin:
#
#     expect TEXT     waits until the terminal shows TEXT after the TEXT expected before
#     absent TEXT     fails if TEXT appears after the TEXT expected last
#     send TEXT       types TEXT; \r is Enter, \x03 Ctrl-C, \x04 Ctrl-D: escapes are Python's
#     exit CODE       waits for the end, and fails for any other exit code
#
# The output of the terminal is printed at the end, or after 20 seconds of waiting.
import os, pty, select, sys, time

pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])

shown, at, is_open = "", 0, True


def read(seconds):
    global shown, is_open
    if is_open and select.select([fd], [], [], seconds)[0]:
        try:
            more = os.read(fd, 4096)
        except OSError:  # the other side is closed
            more = b""
        is_open = bool(more)
        shown += more.decode(errors="replace")


def fail(why):
    print(shown)
    print("terminal.py:", why)
    os.kill(pid, 9)
    sys.exit(1)


for line in sys.stdin.read().splitlines():
    word, _, text = line.partition(" ")
    text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    deadline = time.monotonic() + 20
    if word == "expect":
        while text not in shown[at:]:
            if not is_open or time.monotonic() > deadline:
                fail(f"no {text!r} behind {shown[:at][-40:]!r}")
            read(0.2)
        at = shown.index(text, at) + len(text)
    elif word == "absent":
        if text in shown[at:]:
            fail(f"there is {text!r}")
    elif word == "send":
        time.sleep(0.3)  # nobody types faster: a prompt is shown a moment before it listens
        os.write(fd, text.encode())
    elif word == "exit":
        while is_open and time.monotonic() < deadline:
            read(0.2)
        if is_open:
            fail("it does not end")
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != int(text):
            fail(f"exit code {code}")
    elif word:
        fail(f"what is {word}?")
print(shown)
