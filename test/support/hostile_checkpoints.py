# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile checkpoints: pickles that want more than tensors, and zips that lie."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hostile_texts import Case, Make, pipe, text_file
from torch_zip_builders import Call, Instance, Name, Program, write_torch_zip

MARKER = 'executed'
"""A file of this name in the current folder says that something was executed."""
TOUCH = f'touch {MARKER}'


class _Reduced:
    """Pickles itself as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def dumped(value: Any, protocol: int = 4) -> bytes:
    """Return a pickle of Python's own making."""
    return pickle.dumps(value, protocol)


def _tensor(
    offset: Any = 0,
    shape: Any = (2, 2),
    strides: Any = (2, 1),
    count: Any = 4,
    kind: str = 'FloatStorage',
    key: str = '0',
) -> Program:
    """Return a pickle of one tensor, whose storage is there."""
    made = Program(None)
    identity = ('storage', Name('torch', kind), key, 'cpu', count)
    storage = made.of(identity) + b'Q'
    arguments = (storage, offset, shape, strides, False, {})
    call = Call(Name('torch._utils', '_rebuild_tensor_v2'), arguments)
    made.data = b'\x80\x02' + made.of({'w': call}) + b'.'
    return made


TUPLES_OF_THE_SAME = (
    b'\x80\x02]q\x000' + b''.join(b'h%ch%c\x86q%c0' % (i, i, i + 1) for i in range(60)) + b'h<.'
)
NESTED = b'\x80\x02' + b']' * 200 + b'a' * 199 + b'.'
OVERLONG = b'\x80\x02]' + b'(K\x01K\x02K\x03e' * 400_000 + b'.'
PICKLES: dict[str, bytes] = {
    'os.system': dumped(_Reduced(os.system, TOUCH)),
    'os.system of protocol 0': dumped(_Reduced(os.system, TOUCH), 0),
    'os.system of protocol 2': dumped(_Reduced(os.system, TOUCH), 2),
    'eval': dumped(_Reduced(eval, "__import__('os').system('touch executed')")),
    'a process': dumped(_Reduced(subprocess.check_output, ['touch', MARKER])),
    'getattr of a module': dumped(_Reduced(getattr, _Reduced(__import__, 'os'), 'system')),
    'torch.load within': Program(Call(Name('torch', 'load'), ('x',))).data,
    'a call in the arguments of a tensor': Program(
        Call(
            Name('torch._utils', '_rebuild_tensor_v2'),
            (Call(Name('os', 'system'), (TOUCH,)), 0, (1,), (1,), False, {}),
        )
    ).data,
    'a call in the state of a configuration': Program(
        Instance(
            Name('omegaconf.dictconfig', 'DictConfig'),
            {'_content': Call(Name('posix', 'system'), (TOUCH,))},
        )
    ).data,
    'another class of omegaconf': Program(
        Call(Name('omegaconf.omegaconf', 'OmegaConf.create'), ())
    ).data,
    'a name with dots': Program(Name('torch', '_utils.os.system')).data,
    'a module that exists nowhere': Program(Instance(Name('no_such', 'Thing'), {})).data,
    'instance by INST': b'\x80\x02(X\x05\x00\x00\x00touchios\nsystem\n.',
    'instance by OBJ': b'\x80\x02(ctorch\nSize\no.',
    'an extension code': b'\x80\x02\x82\x01.',
    'a call of a list': b'\x80\x02])R.',
    'a call of a tensor': b'\x80\x02' + _tensor().data[2:-1] + b')R.',
    'a state for a number': b'\x80\x02K\x01}b.',
    'a name of numbers': b'\x80\x04K\x01K\x02\x93.',
    'a stacked name': b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',
    'a list within itself': b'\x80\x02]q\x00h\x00a.',
    'a map within itself': b'\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.',
    'tuples of the same tuples': TUPLES_OF_THE_SAME,
    'deep lists': NESTED,
    'too many instructions': OVERLONG,
    'a key that is a tuple': b'\x80\x02}K\x01K\x02\x86K\x01s.',
    'a giant integer': Program(2**5000).data,
    'a giant length': b'\x80\x02X\xff\xff\xff\xffabc.',
    'a giant length of 8 bytes': b'\x80\x04\x8d' + b'\xff' * 8 + b'abc.',
    'a memo that is empty': b'\x80\x02h\x05.',
    'a mark alone': b'\x80\x02(.',
    'nothing to take': b'\x80\x020.',
    'a mark as a value': b'\x80\x02](a.',
    'items without a mark': b'\x80\x02]e.',
    'no end': b'\x80\x02]',
    'nothing': b'',
    'two values': b'\x80\x02]].',
    'an unknown instruction': b'\x80\x02\xff.',
    'noise': bytes(range(256)) * 50,
    'a storage that is a text': b'\x80\x02X\x01\x00\x00\x00aQ.',
    'an identity as a line': b'\x80\x02P0\n.',
    'a codec that is another': Program(Call(Name('_codecs', 'encode'), ('x', 'zip'))).data,
    'items of an OrderedDict': Program(
        Call(Name('collections', 'OrderedDict'), ([['a', 1]],))
    ).data,
    'arguments that are missing': Program(
        Call(Name('torch._utils', '_rebuild_tensor_v2'), ())
    ).data,
    'a parameter that is a text': Program(
        Call(Name('torch._utils', '_rebuild_parameter'), ('x', False, {}))
    ).data,
    'a tensor behind its storage': _tensor(offset=1).data,
    'a tensor before its storage': _tensor(offset=-1).data,
    'strides behind the storage': _tensor(strides=(2**62, 1)).data,
    'strides below zero': _tensor(strides=(-2, 1)).data,
    'a tensor of one number a billion times': _tensor(shape=(10**9,), strides=(0,)).data,
    'a shape that overflows': _tensor(shape=(2**62, 2**62), strides=(1, 1)).data,
    'a shape of texts': _tensor(shape=('a', 'b')).data,
    'a shape of many dimensions': _tensor(shape=(1,) * 1000, strides=(1,) * 1000).data,
    'strides that are missing': _tensor(strides=()).data,
    'a storage of another size': _tensor(count=2**40).data,
    'a storage of no size': _tensor(count=-4).data,
    'a storage of another type': _tensor(kind='DoubleStorage').data,
    'a storage that is not there': _tensor(key='7').data,
    'a storage above the folder': _tensor(key='../../etc/passwd').data,
}


def checkpoint_cases() -> Iterator[Case]:
    """Return every hostile checkpoint."""
    numbers = {'data/0': torch.zeros(4).numpy().tobytes()}
    for name, data in PICKLES.items():
        yield Case(f'torch zip: {name}', 'torch zip', _pickle(data, numbers))
    for name, make in ZIPS.items():
        yield Case(f'torch zip: {name}', 'torch zip', make, name in SLOW)
    yield Case('torch zip: a pipe', 'torch zip', pipe('policy.ckpt'))
    yield Case('torch zip: an empty file', 'torch zip', text_file('policy.ckpt', b''))
    legacy = io.BytesIO()
    torch.save({'a': torch.zeros(2)}, legacy, _use_new_zipfile_serialization=False)
    yield Case('torch zip: no zip', 'torch zip', text_file('policy.ckpt', legacy.getvalue()))


def _pickle(data: bytes, extra: dict[str, bytes]) -> Make:
    return lambda folder: write_torch_zip(folder / 'policy.ckpt', data, extra)


def _spoiled(spoil: Callable[[bytes], bytes]) -> Make:
    """Return what changes the bytes of a good checkpoint."""

    def make(folder: Path) -> Path:
        path = write_torch_zip(folder / 'policy.ckpt', {'w': torch.arange(4.0)})
        path.write_bytes(spoil(path.read_bytes()))
        return path

    return make


def _many_files(folder: Path) -> Path:
    path = folder / 'policy.ckpt'
    with zipfile.ZipFile(path, 'w') as file:
        for number in range(70_000):
            file.writestr(f'a/{number}', b'')
    return path


def _claimed_entries(content: bytes) -> bytes:
    """Let the end of the zip claim a list of files as long as a file can say."""
    return content[:-14] + struct.pack('<HHLL', 65_535, 65_535, 2**31, 0) + content[-2:]


def _same_bytes(content: bytes) -> bytes:
    """Let the list of files name the same bytes many times: a bomb that needs no compression."""
    end = content[-22:]
    start = struct.unpack('<L', end[16:20])[0]
    listed = content[start:-22]
    name = struct.unpack('<H', listed[28:30])[0]
    first = listed[: 46 + name]
    copies = b''.join(
        first[:46] + first[46:-8] + f'{number:08d}'.encode() for number in range(3000)
    )
    counts = struct.pack('<HHLL', 3000, 3000, len(copies), start)
    return content[:start] + copies + end[:8] + counts + end[20:]


ZIPS: dict[str, Make] = {
    'compressed': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', {'w': 1}, {'data/0': bytes(2**26)}, zipfile.ZIP_DEFLATED
    ),
    'a pickle that is a bomb': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', b'\x80\x02' + b'0' * 2**25, None, zipfile.ZIP_DEFLATED
    ),
    'a pickle that is too large': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', b'N' * (2**25 + 1)
    ),
    'many files': _many_files,
    'a list of files that is too long': _spoiled(_claimed_entries),
    'the same bytes many times': _spoiled(_same_bytes),
    'cut': _spoiled(lambda content: content[: len(content) // 2]),
    'cut by a byte': _spoiled(lambda content: content[:-1]),
    'a comment': _spoiled(lambda content: content[:-2] + b'\x05\x00abcde'),
    'no pickle': _spoiled(lambda content: content.replace(b'data.pkl', b'data.txt')),
    'a pickle that is changed': _spoiled(lambda content: content.replace(b'Floa', b'Flob', 1)),
    'of a big-endian computer': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', {'w': 1}, byteorder='big'
    ),
    'TorchScript': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', {'w': 1}, {'constants.pkl': b'\x80\x02).'}
    ),
    'two checkpoints': lambda folder: write_torch_zip(
        folder / 'policy.ckpt', {'w': 1}, {'other/data.pkl': b'\x80\x02).'}
    ),
}


SLOW = ('many files',)


if __name__ == '__main__':  # Shows what is refused, and why.
    from residual_rl_ros.errors import FormatError
    from residual_rl_ros.importing.torch_zip import TorchZip

    for number, case in enumerate(checkpoint_cases()):
        folder = Path(sys.argv[1], str(number))
        folder.mkdir(parents=True)
        try:
            TorchZip(case.make(folder))
            print(f'{case.name}: ACCEPTED')
        except FormatError as error:
            print(f'{case.name}: {error}')
