"""Single-steps a program to its end and prints how many of its instructions were `cpuid`, and how many there were."""

import ctypes
import os
import signal
import sys

TRACEME, PEEKTEXT, PEEKUSER, SINGLESTEP = 0, 1, 3, 9
RIP = 16 * 8  # in struct user (sys/user.h)
CPUID = 0xA20F  # 0f a2

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

pid = os.fork()
if pid == 0:
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    if libc.ptrace(TRACEME, 0, None, None) != 0:
        os._exit(125)
    os.execv(sys.argv[1], sys.argv[1:])

steps = cpuids = 0
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        break
    # The one after execve(2) comes before the first instruction.
    at = libc.ptrace(PEEKUSER, pid, RIP, None) & (1 << 64) - 1
    if libc.ptrace(PEEKTEXT, pid, at, None) & 0xFFFF == CPUID:
        cpuids += 1
    steps += 1
    given = os.WSTOPSIG(status)
    libc.ptrace(SINGLESTEP, pid, None, None if given == signal.SIGTRAP else given)
print(cpuids, steps, os.waitstatus_to_exitcode(status))
