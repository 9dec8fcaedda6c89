"""Files that are broken or lie, made by code: the corpus of the tests.

Each function returns writers by name; a writer takes the path. None is large:
what unfolds to much is a few kilobytes, or less than a megabyte.
"""

import io
import json
import os
import re
import struct
import zipfile

import h5py
import numpy as np

DIGITS = '9' * 5000
SIZE = 18 * 2**24  # Just beyond what is too large.


def header(shape, dtype='<f4', version=1, text=None):
  """The text before the numbers of an array, saying anything."""
  text = text or f"{{'descr': {dtype!r}, 'fortran_order': False, "
  if 'shape' not in text:
    text += f"'shape': {shape}, }}"
  data = text.encode() + b'\n'
  width = {1: '<H', 2: '<I', 3: '<I'}[version]
  return (
    b'\x93NUMPY' + bytes([version, 0]) + struct.pack(width, len(data)) + data
  )


def pack(arrays):
  """Entries of an archive from arrays, or bytes as they are."""
  entries = {}
  for name, value in arrays.items():
    if isinstance(value, bytes):
      entries[f'{name}.npy'] = value
      continue
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value), allow_pickle=True)
    entries[f'{name}.npy'] = stream.getvalue()
  return entries


def write(path, arrays, method=zipfile.ZIP_DEFLATED):
  """An archive of arrays, or of bytes that pretend to be some."""
  with zipfile.ZipFile(path, 'w', method) as archive:
    for name, data in pack(arrays).items():
      archive.writestr(name, data)
  return path


def bomb(path, arrays, key, head, size):
  """An archive whose array `key` is zeros, many more than bytes."""
  write(path, {k: v for k, v in arrays.items() if k != key})
  with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED, True, 1) as archive:
    with archive.open(f'{key}.npy', 'w', force_zip64=True) as stream:
      stream.write(head)
      for _ in range(size >> 22):
        stream.write(bytes(2**22))
  return path


def patch(path, arrays, offset, data, entry=-1):
  """An archive of which a directory entry is changed from an offset on."""
  write(path, arrays, zipfile.ZIP_STORED)
  content = bytearray(path.read_bytes())
  starts = [x.start() for x in re.finditer(b'PK\x01\x02', content)]
  start = starts[entry] + offset
  content[start : start + len(data)] = data
  path.write_bytes(bytes(content))
  return path


def archives(good, key):
  """Broken npz files; `good` arrays of which `key` is changed.

  Args:
    good: arrays by name, float32 under `key`.
    key: the array that lies.
  """
  count = len(good[key])
  lie = lambda **x: lambda path: write(path, {**good, key: header(**x)})
  body = np.asarray(good[key], np.float32).tobytes()
  claim = lambda shape, **x: (
    lambda path: write(path, {**good, key: header(shape, **x) + body})
  )
  last = {**{k: v for k, v in good.items() if k != key}, key: good[key]}
  evil = np.empty(count, object)
  return {
    'claims 10^12 records': claim((10**12,)),
    'claims one record more': claim((count + 1, *np.shape(good[key])[1:])),
    'claims no records': claim((0,)),
    'claims fewer records': claim((count - 1, *np.shape(good[key])[1:])),
    'claims negative records': claim((-count,)),
    'claims 10^12 of no size': claim((10**12,), dtype='|V0'),
    'claims empty texts': claim((10**12,), dtype='<U0'),
    'claims 100 axes': claim((1,) * 100),
    'claims 5,000 digits': claim(f'({DIGITS},)'),
    'claims true': claim((True,)),
    'header of a list': claim(f'[{count}]'),
    'header nested deeply': lie(shape='(' * 4000 + ')' * 4000),
    'header that is long': lie(shape='(' + ' ' * 60000 + '7,)'),
    'header of 3 GB': lambda path: write(
      path, {**good, key: b'\x93NUMPY\x02\x00' + struct.pack('<I', 3 * 10**9)}
    ),
    'header of a call': lie(shape='exit()'),
    'header cut': lambda path: write(path, {**good, key: header((7,))[:20]}),
    'header of nothing': lambda path: write(path, {**good, key: b''}),
    'version 9': lambda path: write(
      path, {**good, key: header((7,)).replace(b'Y\x01', b'Y\x09')}
    ),
    'pickled objects': lambda path: write(path, {**good, key: evil}),
    'records of fields': lambda path: write(
      path, {**good, key: np.zeros(count, [('a', 'f4'), ('b', 'O')])}
    ),
    'texts': lambda path: write(path, {**good, key: ['a'] * count}),
    'dates': lambda path: write(
      path, {**good, key: np.zeros(count, 'datetime64[s]')}
    ),
    'unfolds to 288 MiB': lambda path: bomb(
      path, good, key, header((SIZE // 4,)), SIZE
    ),
    'unknown compression': lambda path: patch(
      path, last, 10, struct.pack('<H', 99)
    ),
    'lzma': lambda path: write(path, good, zipfile.ZIP_LZMA),
    'encrypted': lambda path: patch(path, last, 8, struct.pack('<H', 1)),
    'directory claims 4 GB': lambda path: patch(
      path, last, 20, struct.pack('<II', 2**32 - 2, 2**32 - 2)
    ),
    'directory claims it unfolds': lambda path: patch(
      path, last, 24, struct.pack('<I', 2**32 - 2)
    ),
    'directory points beyond': lambda path: patch(
      path, last, 42, struct.pack('<I', 2**31)
    ),
    'entry that hides those behind it': lambda path: patch(
      path, last, 32, struct.pack('<H', 2**16 - 1), entry=-2
    ),
    'directory with another name': lambda path: patch(path, last, 46, b'x'),
    'nothing': lambda path: path.write_bytes(b''),
    'a text': lambda path: path.write_text('no archive\n' * 100),
    'an empty archive': lambda path: write(path, {}),
    'a folder': lambda path: path.mkdir(),
    'a pipe': lambda path: os.mkfifo(path),
    'one array': lambda path: path.write_bytes(header((1,)) + bytes(4)),
    'cut in half': lambda path: _cut(write(path, good), 0.5),
    'cut at the end': lambda path: _cut(write(path, good), 0.98),
    'a hole at the start': lambda path: _hole(write(path, good)),
  }


def episodes(good):
  """Broken episode files that are sound archives, and those that are not."""
  changed = lambda **x: lambda path: write(path, {**good, **x})
  count = len(good['reward'])
  without = lambda *keys: (
    lambda path: write(path, {k: v for k, v in good.items() if k not in keys})
  )
  return {
    **archives(good, 'reward'),
    'no actions': without('action'),
    'no rewards': without('reward'),
    'no state': without('state'),
    'nan reward': changed(reward=np.full(count, np.nan, np.float32)),
    'infinite state': changed(state=np.full((count, 5), np.inf)),
    'reward of 1e300': changed(reward=np.full(count, 1e300)),
    'complex reward': changed(reward=np.zeros(count, complex)),
    'reward without axis': changed(reward=np.float32(1)),
    'two episodes': changed(is_first=np.arange(count) % 3 == 0),
    'ends in the middle': changed(is_terminal=np.arange(count) == 2),
    'actions shifted': changed(action=np.full((count, 2), 0.5)),
    'actions of 100': changed(action=100 * np.eye(count, 2, -1)),
    'more images': changed(image=np.zeros((count + 1, 8, 8, 3), np.uint8)),
    'large images': changed(image=np.zeros((count, 9, 9, 3), np.uint8)),
    'images without end': lambda path: bomb(
      path, good, 'image', header((SIZE // 192, 8, 8, 3), '|u1'), SIZE
    ),
    'one record': lambda path: write(
      path, {k: np.asarray(v)[:1] for k, v in good.items()}
    ),
  }


def json_texts():
  """What dataset.json must not be, as text or bytes."""
  return {
    'nothing': '',
    'a number': '7',
    'a list': '[]',
    'cut': '{"task": "metaworld_x',
    'nested': '[' * 100_000 + ']' * 100_000,
    'nested a bit': '{"task": ' + '[' * 200 + ']' * 200 + '}',
    'nested maps': '{"a":' * 50_000 + '1' + '}' * 50_000,
    '5,000 digits': f'{{"seed": {DIGITS}}}',
    'half a pair': '{"task": "\\ud800"}',
    'no Unicode': b'{"task": "\xff\xfe"}',
    'task a number': '{"task": 3}',
    'dropped a text': '{"dropped": "all"}',
    'dropped lists': '{"dropped": [[1]]}',
    'env a list': '{"env": [1]}',
    'zeros': bytes(1000),
  }


def yaml_texts():
  """What a file of settings must not be."""
  names = 'abcdefghi'
  bomb = ['a: &a [x,x,x,x,x,x,x,x,x]'] + [
    f'{b}: &{b} [{",".join([f"*{a}"] * 9)}]' for a, b in zip(names, names[1:])
  ]
  maps = ['a: &a {x: 1, y: 2}'] + [
    f'{b}: &{b} {{{", ".join(f"k{i}: *{a}" for i in range(9))}}}'
    for a, b in zip(names, names[1:])
  ]
  return {
    'aliases of lists': '\n'.join(bomb),
    'aliases of maps': '\n'.join(maps),
    'a merge of merges': 'a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nseed: *b',
    'an alias of itself': 'seed: &a [*a]',
    'a map of itself': 'seed: &a {x: *a}',
    'an alias of nothing': 'seed: *a',
    'nested lists': 'seed: ' + '[' * 100_000,
    'nested maps': 'seed: ' + '{a: ' * 50_000,
    'nested lines': '\n'.join(' ' * i + f'a{i}:' for i in range(2000)),
    'nested a bit': 'seed: ' + '[' * 60 + ']' * 60,
    'many dashes': '- ' * 5000,
    '5,000 digits': f'seed: {DIGITS}',
    '4,000 digits': f'online_steps: {DIGITS[:4000]}',
    'a float beyond': 'discount: 1e999',
    'nan': 'discount: .nan',
    'a date': 'seed: 2001-99-99',
    'a call': '!!python/object/apply:os.system ["true"]',
    'a tag': 'seed: !!binary "////"',
    'a set': 'seed: !!set {a, b}',
    'half a pair': 'task: "gym_\\ud800"',
    'a zero in a path': 'logdir: "a\\0b"',
    'nobody': 'logdir: "{seed.__class__}"',
    'a width': 'logdir: "{task:>1000000000}"',
    'a list': '- seed',
    'a text': 'seed',
    'tabs': 'seed:\t\n\t- 1',
    'keys twice': 'seed: 1\nseed: 2',
    'no names': '1: 2',
    'a list as key': '? [a, b]\n: 1',
    'a bad pattern': "'(': 1",
    'a pattern without end': "'(a*)*b': 1",
    'no Unicode': b'seed: \xff\xfe',
    'zeros': bytes(100),
    'a megabyte': 'seed: 1 #' + 'x' * 2**20,
    'an empty list': 'actor.layers: []',
    'a list of lists': 'actor.layers: [[1]]',
    'too many layers': f'actor.layers: [{",".join("1" * 5000)}]',
    'a map for a number': 'seed: {a: 1}',
    'a number for a group': 'actor: 1',
    'two documents': 'seed: 1\n---\nseed: 2',
  }


def write_hdf5(path, arrays):
  with h5py.File(path, 'w') as file:
    for name, value in arrays.items():
      file[name] = value
  return path


def hdf5(good, key):
  """Broken HDF5 files with `key` changed; `good` arrays by name."""

  def changed(change):
    def make(path):
      write_hdf5(path, {k: v for k, v in good.items() if k != key})
      with h5py.File(path, 'a') as file:
        change(file, path)

    return make

  def outside(file, path):
    other = write_hdf5(path.with_suffix('.other'), {'x': good[key]})
    return other

  def link(file, path):
    file[key] = h5py.ExternalLink(str(outside(file, path)), 'x')

  def virtual(file, path):
    shape = np.shape(good[key])
    layout = h5py.VirtualLayout(shape, 'f4')
    layout[:] = h5py.VirtualSource(str(outside(file, path)), 'x', shape)
    file.create_virtual_dataset(key, layout)

  def external(file, path):
    raw = path.with_suffix('.raw')
    raw.write_bytes(np.asarray(good[key], 'f4').tobytes())
    size = raw.stat().st_size
    shape = np.shape(good[key])
    file.create_dataset(key, shape, 'f4', external=[(str(raw), 0, size)])

  def soft(file, path):
    file['elsewhere'] = good[key]
    file[key] = h5py.SoftLink('/elsewhere')

  def huge(file, path):
    shape = (10**12, *np.shape(good[key])[1:])
    chunks = (1000, *shape[1:])
    file.create_dataset(key, shape, 'f4', chunks=chunks, compression='gzip')

  def unfolds(file, path):
    shape = (2**27 // int(np.prod(np.shape(good[key])[1:])),)
    shape = (*shape, *np.shape(good[key])[1:])
    chunks = (2**20 // int(np.prod(shape[1:])), *shape[1:])
    data = file.create_dataset(
      key, shape, 'f4', chunks=chunks, compression='gzip', compression_opts=9
    )
    data[: chunks[0]] = 0

  def texts(file, path):
    file[key] = ['a'] * len(good[key])

  def fields(file, path):
    file[key] = np.zeros(len(good[key]), [('a', 'f4')])

  def group(file, path):
    file.create_group(key)

  def nothing(file, path):
    file.create_dataset(key, dtype='f4', data=h5py.Empty('f4'))

  changes = (link, virtual, external, soft, huge, unfolds, texts, fields)
  found = {x.__name__: changed(x) for x in (*changes, group, nothing)}
  return {
    **found,
    'missing': changed(lambda file, path: None),
    'cut': lambda path: _cut(write_hdf5(path, good), 0.5),
    'empty': lambda path: path.write_bytes(b''),
    'a text': lambda path: path.write_text('no HDF5'),
  }


def metas():
  """What the meta of a checkpoint must not be, as bytes."""
  return {
    name: text if isinstance(text, bytes) else text.encode()
    for name, text in json_texts().items()
    if name
    in ('nothing', 'cut', 'nested', 'nested maps', '5,000 digits', 'no Unicode')
  } | {'no JSON': json.dumps({'a': 1}).encode()[:-1]}


def _cut(path, share):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  return path


def _hole(path):
  data = path.read_bytes()
  path.write_bytes(bytes(64) + data[64:])
  return path
