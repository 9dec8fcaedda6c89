"""Arrays of other people's HDF5 files, which may name further files."""

import h5py
import numpy as np

from moto_tf.bounded import check_growth
from moto_tf.data.formats import SourceError


def read_array(group: h5py.Group, name: str) -> np.ndarray:
  """An array of numbers that lies in the file itself.

  Args:
    group: the file or a group in it.
    name: with slashes between groups.

  Raises:
    KeyError: there is no such array; the message says what is there.
    SourceError: it would read other files, or claims more than is there.
  """
  head, _, rest = name.partition('/')
  where = f'{group.file.filename}: {group.name.rstrip("/")}/{head}'
  link = group.get(head, getlink=True)
  if link is None:
    found = ', '.join(list(group)[:10]) or 'nothing'
    raise KeyError(f'{group.name} has no {head!r}, found {found}')
  if not isinstance(link, h5py.HardLink):
    raise SourceError(f'{where} is a link, expected an array of this file.')
  found = group[head]
  if rest:
    if not isinstance(found, h5py.Group):
      raise KeyError(
        f'{found.name} is an array of shape {found.shape}, expected a group '
        f'that holds {rest!r}'
      )
    return read_array(found, rest)
  if not isinstance(found, h5py.Dataset):
    raise KeyError(f'{found.name} is a group, expected an array')
  if found.is_virtual or found.external:
    raise SourceError(f'{where} takes its values from other files.')
  if found.shape is None or found.dtype.kind not in 'biuf':
    raise SourceError(f'{where} has type {found.dtype}, expected numbers.')
  try:
    check_growth(int(found.nbytes), found.id.get_storage_size())
  except ValueError as error:
    raise SourceError(f'{where}: {error}.') from None
  return found[()]
