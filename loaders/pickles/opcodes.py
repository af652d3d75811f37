"""The opcodes of pickles: what handles each, and what it may cost in units of 24 bytes."""

from __future__ import annotations

_TABLE = """
28 mark 4
29 empty_tuple 1
30 pop 1
31 pop_mark 1
32 dup 1
42 binbytes 7
43 short_binbytes 3
46 float 2
47 binfloat 2
49 int 3
4a binint 2
4b binint1 1
4c long_text 3
4d binint2 2
4e none 1
51 binpersid 5
52 reduce 7
53 string 4
54 binstring 4
55 short_binstring 4
56 unicode 4
58 binunicode 4
5d empty_list 4
61 append 3
62 build 1
63 global 2
64 dict 8
65 appends 3
67 get 2
68 binget 2
69 inst 9
6a long_binget 2
6c list 1
6f obj 7
70 put 2
71 binput 2
72 long_binput 2
73 setitem 7
74 tuple 2
75 setitems 7
7d empty_dict 4
80 proto 1
81 newobj 7
85 tuple1 3
86 tuple2 3
87 tuple3 3
88 newtrue 1
89 newfalse 1
8a long1 3
8b long4 3
8c short_binunicode 4
8d binunicode8 4
8e binbytes8 7
8f empty_set 11
90 additems 3
91 frozenset 8
92 newobj_ex 11
93 stack_global 2
94 memoize 1
95 frame 1
96 bytearray8 7
"""
_ROWS = [line.split() for line in _TABLE.split("\n") if line]

STOP = 0x2E
NAMES = {int(opcode, 16): name for opcode, name, _ in _ROWS}
WEIGHTS = [1] * 256
for _opcode, _, _weight in _ROWS:
    WEIGHTS[int(_opcode, 16)] = int(_weight)
REFUSED = {
    0x50: "PERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
