"""The filters of libseccomp for policies in the form of config.json, made as runc and crun make them.

Reads one JSON policy per line on stdin; prints its program in hex per line, as struct sock_filter in native order, or
"refused" where libseccomp finds that a rule contradicts another one (EEXIST), which runc and crun pass on.
"""

import json
import sys
import tempfile

import seccomp
from seccomp import ALLOW, ERRNO, KILL, KILL_PROCESS, LOG, NOTIFY, TRACE, TRAP

FIXED = {
    "SCMP_ACT_KILL": KILL,
    "SCMP_ACT_KILL_THREAD": KILL,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
}
OPERATORS = {
    "SCMP_CMP_NE": seccomp.NE,
    "SCMP_CMP_LT": seccomp.LT,
    "SCMP_CMP_LE": seccomp.LE,
    "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_GE": seccomp.GE,
    "SCMP_CMP_GT": seccomp.GT,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": seccomp.Arch.X86_64,
    "SCMP_ARCH_X86": seccomp.Arch.X86,
    "SCMP_ARCH_X32": seccomp.Arch.X32,
}


def action(name, errno):
    errno = 1 if errno is None else errno
    return {"SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_TRACE": TRACE}[name](errno) if name not in FIXED else FIXED[name]


def condition(arg):
    if arg["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(arg["index"], OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo") or 0)
    return seccomp.Arg(arg["index"], OPERATORS[arg["op"]], arg["value"])


def compile_policy(policy):
    default = action(policy["defaultAction"], policy.get("defaultErrnoRet"))
    program = seccomp.SyscallFilter(default)
    # Theirs ends the thread; which of the two it is, is not what is compared.
    program.set_attr(seccomp.Attr.ACT_BADARCH, KILL_PROCESS)
    for name in policy.get("architectures") or []:
        if not program.exist_arch(ARCHITECTURES[name]):
            program.add_arch(ARCHITECTURES[name])
    for rule in policy.get("syscalls") or []:
        what = action(rule["action"], rule.get("errnoRet"))
        if what == default:
            continue
        args = rule.get("args") or []
        shared = len({arg["index"] for arg in args}) < len(args)
        for name in rule["names"]:
            number = seccomp.resolve_syscall(seccomp.Arch(), name)
            if number == -1:
                continue
            alternatives = [[condition(arg)] for arg in args] if shared else [[condition(arg) for arg in args]]
            for conditions in alternatives:
                program.add_rule(what, number, *conditions)
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


for line in sys.stdin:
    try:
        print(compile_policy(json.loads(line)).hex(), flush=True)
    except RuntimeError as error:
        if "errno = -17" not in str(error):
            raise
        print("refused", flush=True)
