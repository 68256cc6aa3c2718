# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Torch zips: what torch saves is read, and what a pickle wants besides is refused unexecuted."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_checkpoints import MARKER, PICKLES, dumped
from torch_zip_builders import Call, Instance, Name, Program, omegaconf, write_torch_zip

from residual_rl_ros.errors import FormatError, PolicyImportError
from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.mapping import ImportOptions
from residual_rl_ros.importing.pickle_program import Record
from residual_rl_ros.importing.stored_config import plain_config
from residual_rl_ros.importing.torch_zip import TorchZip


def saved(folder: Path, value: Any) -> TorchZip:
    torch.save(value, folder / 'saved.pth')
    return TorchZip(folder / 'saved.pth')


def test_what_torch_saves_is_read_number_by_number(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        'plain': torch.randn(3, 4),
        'double': torch.randn(2, dtype=torch.float64),
        'half': torch.randn(2).half(),
        'brain': torch.randn(2).bfloat16(),
        'long': torch.tensor([2**40, -1]),
        'bytes': torch.tensor([0, 255], dtype=torch.uint8),
        'flags': torch.tensor([True, False]),
        'scalar': torch.tensor(3.5),
        'empty': torch.zeros(0, 3),
        'view': base[1:3, 2:],
        'transposed': base.T,
        'parameter': torch.nn.Parameter(torch.randn(2)),
    }
    with saved(tmp_path, {'state': state}) as file:
        found = file.tensors(file.content['state'], 'state')
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor.detach()), name


def test_modules_and_optimizers_are_read(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    value = {'model': module.state_dict(), 'optimizer': optimizer.state_dict(), 'size': (1, None)}
    with saved(tmp_path, value) as file:
        found = file.tensors(file.content['model'], 'model')
        assert file.content['size'] == (1, None)
        assert file.content['optimizer']['param_groups'][0]['params'] == [0, 1, 2, 3]
    assert all(torch.equal(found[name], each) for name, each in module.state_dict().items())


def test_numbers_of_numpy_beside_the_weights_are_left_alone(tmp_path: Path) -> None:
    np = importlib.import_module('numpy')
    with saved(tmp_path, {'best': np.float64(0.5), 'history': np.zeros(3), 'a': 1}) as file:
        assert isinstance(file.content['best'], Record)
        assert file.content['a'] == 1


def test_a_configuration_of_classes_that_are_not_installed_is_read(tmp_path: Path) -> None:
    values = {'horizon': 16, 'policy': {'dims': [1, 2], 'rate': 0.5, 'on': True, 'none': None}}
    with TorchZip(write_torch_zip(tmp_path / 'a.ckpt', {'cfg': omegaconf(values)})) as file:
        config = plain_config(file.content['cfg'], 'cfg')
    assert config.content == values
    assert config.get('horizon', int) == 16
    assert config.get('policy.rate', float) == 0.5
    with pytest.raises(PolicyImportError, match=r'policy\.rate of cfg is 0\.5, expected a text'):
        config.get('policy.rate', str)


def test_a_configuration_that_holds_itself_is_refused(tmp_path: Path) -> None:
    record = Record('omegaconf.dictconfig.DictConfig', ())
    record.state = {'_content': {'again': record}}
    with pytest.raises(PolicyImportError, match='depth'):
        plain_config(record, 'cfg')


def test_a_configuration_of_something_else_is_refused() -> None:
    record = Record('omegaconf.dictconfig.DictConfig', (), {'_content': {'a': Record('x.Y', ())}})
    with pytest.raises(PolicyImportError, match=r'holds a x\.Y'):
        plain_config(record, 'cfg')


@pytest.mark.parametrize('name', PICKLES)
def test_a_hostile_pickle_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_torch_zip(
        tmp_path / 'a.ckpt', PICKLES[name], {'data/0': torch.zeros(4).numpy().tobytes()}
    )

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError('the pickle calls something')

    for function in ('os.system', 'posix.system', 'subprocess.check_output', 'builtins.eval'):
        monkeypatch.setattr(function, forbidden)
    with pytest.raises(FormatError, match='nothing in it was executed'):
        TorchZip(path)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize(
    ('name', 'asked'),
    [
        ('os.system', 'posix.system'),
        ('eval', 'builtins.eval'),
        ('getattr of a module', 'builtins.getattr'),
        ('a stacked name', 'os.system'),
        ('another class of omegaconf', 'OmegaConf.create'),
    ],
)
def test_what_a_pickle_asks_for_is_named(name: str, asked: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=asked):
        TorchZip(write_torch_zip(tmp_path / 'a.ckpt', PICKLES[name]))


def test_the_marker_of_the_hostile_pickles_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickle = importlib.import_module('pickle')
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLES['os.system'])
    assert Path(MARKER).exists()


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_containers_of_every_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    value = {
        'texts': ['a', 'ä' * 300, b'x', b'y' * 300],
        'numbers': (0, -1, 255, 70_000, 2**40, -(2**70), 0.5, True, None),
        'sets': frozenset({'a'}),
        'again': [],
        'nested': {'1': [(), (1,), (1, 2, 3, 4)]},
    }
    if protocol < 4:
        del value['sets']  # Those are calls of classes there.
    with TorchZip(write_torch_zip(tmp_path / 'a.ckpt', dumped(value, protocol))) as file:
        assert file.content == value


def test_every_cut_of_a_pickle_is_refused(tmp_path: Path) -> None:
    data = Program({'cfg': omegaconf({'a': [1, 2]}), 'x': (1.5, 'text')}).data
    for length in range(0, len(data), 5):
        with pytest.raises(FormatError):
            TorchZip(write_torch_zip(tmp_path / 'a.ckpt', data[:length]))


def test_every_changed_byte_is_refused_or_read_without_a_traceback(tmp_path: Path) -> None:
    data = Program({'a': torch.zeros(2), 'b': [1, {'c': 2.0}]}).data
    numbers = {'data/0': struct.pack('<2f', 0.0, 0.0)}
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :]
        try:
            TorchZip(write_torch_zip(tmp_path / 'a.ckpt', changed, numbers))
        except FormatError:
            continue


def test_a_damaged_number_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = write_torch_zip(tmp_path / 'a.ckpt', {'w': torch.arange(4.0)})
    path.write_bytes(path.read_bytes().replace(struct.pack('<f', 3.0), struct.pack('<f', 4.0)))
    with TorchZip(path) as file, pytest.raises(FormatError, match='damaged'):
        file.tensors(file.content, 'weights')


def test_what_is_no_state_dictionary_is_refused(tmp_path: Path) -> None:
    with TorchZip(write_torch_zip(tmp_path / 'a.ckpt', {'w': 1, 'x': [1]})) as file:
        with pytest.raises(FormatError, match="weights has 1 under 'w', expected a tensor"):
            file.tensors(file.content, 'weights')
        with pytest.raises(FormatError, match='expected a map of tensors'):
            file.tensors(file.content['x'], 'weights')


def test_a_state_of_a_record_and_of_a_map_calls_nothing(tmp_path: Path) -> None:
    ordered = Call(Name('collections', 'OrderedDict'))
    value = {
        'record': Instance(Name('omegaconf.nodes', 'AnyNode'), {'_val': 1, 'get': 2}),
        'map': Program(None).of(ordered) + Program(None).of({'items': 1}) + b'b',
    }
    with TorchZip(write_torch_zip(tmp_path / 'a.ckpt', value)) as file:
        assert file.content['record'].state == {'_val': 1, 'get': 2}
        assert dict(file.content['map'].items()) == {}


def test_records_that_hold_one_another_twice_are_shown_by_their_name(tmp_path: Path) -> None:
    record = Record('omegaconf.nodes.AnyNode', ())
    for _ in range(8):
        record = Record('omegaconf.nodes.AnyNode', (record, record), record)
    assert repr(record) == 'Record(omegaconf.nodes.AnyNode)'
    kind = b'comegaconf.nodes\nAnyNode\n'
    nested = kind + b')R' + 40 * (b'q\x000' + kind + b'h\x00h\x00\x86R')
    content = {'algo_name': nested, 'config': '', 'model': {}}
    path = write_torch_zip(tmp_path / 'a.pth', content)
    with pytest.raises(PolicyImportError, match=r'algorithm Record\(omegaconf\.nodes\.AnyNode\)'):
        import_checkpoint(path, ImportOptions())
