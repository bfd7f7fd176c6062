"""Runs a command where io_uring_setup(2) fails with EPERM, as under Docker's default seccomp profile.

    forbid_io_uring.py COMMAND [ARGUMENT ...]
"""
import ctypes
import os
import sys

IO_URING_SETUP = 425
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38


class Statement(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Statement))]


FILTER = (Statement * 4)(
    (0x20, 0, 0, 0),               # load the number of the system call
    (0x15, 0, 1, IO_URING_SETUP),  # is it that one?
    (0x06, 0, 0, 0x00050001),      # yes: EPERM
    (0x06, 0, 0, 0x7FFF0000),      # no: as usual
)
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(FILTER), FILTER)
for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                  (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
    if libc.prctl(*arguments) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
