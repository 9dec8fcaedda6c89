// The page of `label`: one episode at a time, as a video, with keys.
import { Player } from './player.js';

const CACHED = 3; // Videos held.

const $ = (id) => document.getElementById(id);
const player = new Player($('video'), drawTime);

let episodes = []; // As the server lists them.
let current = -1; // Index in episodes.
let saving = false;
let rewards = false; // Whether labels are to be rewards, too.
const done = []; // What undo takes back: {name, label, start, reward}.
const videos = new Map(); // Promises of bytes by name, the newest last.

// The server.

async function ask(path, body) {
  const options = { headers: { 'X-Label-Token': location.hash.slice(1) } };
  if (body) {
    options.method = 'POST';
    options.body = JSON.stringify(body);
    options.headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error('The command that serves this page does not answer.');
  }
  if (!answer.ok) {
    throw new Error((await answer.json()).error);
  }
  return answer;
}

function bytesOf(episode) {
  const name = episode.name;
  let found = videos.get(name);
  if (!found) {
    found = ask(`api/frames/${encodeURIComponent(name)}`)
      .then((answer) => answer.arrayBuffer())
      .then((buffer) => new Uint8Array(buffer));
    found.catch(() => videos.delete(name));
  }
  videos.delete(name);
  videos.set(name, found);
  if (videos.size > CACHED) {
    videos.delete(videos.keys().next().value);
  }
  return found;
}

// What is shown.

function say(text, bad) {
  $('message').textContent = text;
  $('message').classList.toggle('error', Boolean(bad));
}

function success(start, records) {
  const last = start === records - 1;
  return last ? 'success at the last record' : `success from record ${start}`;
}

function describe(episode) {
  if (episode.problem) {
    return episode.problem;
  }
  const { labelled, recorded, records, start } = episode;
  const before = recorded === null ? 'no success' : success(recorded, records);
  const now = start === null ? 'failure' : success(start, records);
  const paid = isOpen(episode) ? ', without rewards' : '';
  const label = labelled ? `Labelled ${now}${paid}` : 'Not labelled';
  return `${label}; ${before} was recorded`;
}

function mark(episode) {
  if (episode.problem) {
    return ['!', 'failure', 'cannot be shown'];
  }
  if (isOpen(episode)) {
    const text = episode.labelled ? 'labelled without rewards' : 'not labelled';
    return ['\u00b7', 'open', text];
  }
  return episode.start === null
    ? ['\u2717', 'failure', 'failure']
    : ['\u2713', 'success', 'success'];
}

function drawList() {
  const rows = episodes.map((episode, index) => {
    const [sign, kind, text] = mark(episode);
    const row = document.createElement('li');
    const button = document.createElement('button');
    const name = document.createElement('span');
    const state = document.createElement('b');
    name.textContent = episode.name.replace(/\.npz$/, '');
    state.textContent = sign;
    state.className = kind;
    button.title = `${episode.name}: ${text}`;
    button.setAttribute('aria-current', String(index === current));
    button.append(state, name);
    button.addEventListener('click', () => open(index));
    row.hidden = $('only').checked && !isOpen(episode) && index !== current;
    row.append(button);
    return row;
  });
  const list = $('list');
  list.replaceChildren(...rows);
  if (rows[current]) {
    const top = rows[current].offsetTop;
    const least = top + rows[current].offsetHeight - list.clientHeight;
    list.scrollTop = Math.min(Math.max(list.scrollTop, least), top);
  }
}

function drawState() {
  const usable = episodes.filter((episode) => !episode.problem);
  const labelled = usable.filter((episode) => !isOpen(episode));
  const count = `${labelled.length} of ${usable.length} labelled`;
  $('count').textContent = episodes.length ? count : 'Loading';
  $('bar').max = Math.max(1, usable.length);
  $('bar').value = labelled.length;
  const episode = episodes[current];
  $('name').textContent = episode ? episode.name : '';
  $('state').textContent = episode ? describe(episode) : '';
  $('state').className = episode ? mark(episode)[1] : '';
  const ready = player.ready && !saving;
  for (const id of ['success', 'failure']) {
    $(id).disabled = !ready;
  }
  for (const id of ['play', 'back', 'forward', 'time']) {
    $(id).disabled = !player.ready;
  }
  $('remove').disabled = !(ready && episode.labelled);
  $('undo').disabled = saving || !done.length;
  for (const id of ['previous', 'next']) {
    $(id).disabled = episodes.length < 2;
  }
  drawTime();
  drawList();
}

function drawTime() {
  const { ready, record, last, playing, speed } = player;
  $('time').max = last;
  $('time').value = record;
  $('record').textContent = ready ? `${record} / ${last}` : '';
  $('here').disabled = !ready || saving || record === 0;
  $('play').firstChild.textContent = playing ? 'Pause ' : 'Play ';
  $('speed').textContent = `${speed}\u00d7`;
}

// Which episode.

function isOpen(episode) {
  const { labelled, problem, rewarded } = episode;
  return !problem && !(labelled && (rewarded || !rewards));
}

// The next index in a direction, around the end, that is to be shown; -1: none.
function neighbour(direction, wanted) {
  const count = episodes.length;
  for (let i = 1; i < count; i++) {
    const index = (current + direction * i + i * count) % count;
    if (wanted(episodes[index])) {
      return index;
    }
  }
  return -1;
}

function move(direction) {
  const wanted = $('only').checked ? isOpen : () => true;
  const index = neighbour(direction, wanted);
  if (index >= 0) {
    open(index);
  } else if (episodes.some(isOpen)) {
    say('This is the only one.');
  } else {
    say('All episodes are labelled.');
  }
}

async function open(index) {
  player.clear();
  current = index;
  const episode = episodes[index];
  const bad = Boolean(episode.problem);
  say(bad ? episode.problem : '', bad);
  drawState();
  if (bad) {
    return;
  }
  try {
    const bytes = await bytesOf(episode);
    if (current !== index) {
      return;
    }
    player.load(bytes, episode.shape);
    player.play();
    drawState();
    const next = neighbour(1, $('only').checked ? isOpen : (x) => !x.problem);
    if (next >= 0) {
      bytesOf(episodes[next]).catch(() => {}); // It is said when it is opened.
    }
  } catch (error) {
    if (current === index) {
      say(error.message, true);
    }
  }
}

// Labels.

async function save(name, label, start, reward) {
  saving = true;
  say('Saving');
  drawState();
  try {
    const body = { episode: name, label, reward };
    if (label === 'success') {
      body.start = start;
    }
    const row = await (await ask('api/label', body)).json();
    const index = episodes.findIndex((episode) => episode.name === name);
    episodes[index] = row;
    say(`${name}: ${describe(row)}. Saved.`);
    return index;
  } catch (error) {
    say(`Not saved. ${error.message}`, true);
    return -1;
  } finally {
    saving = false;
    drawState();
  }
}

async function give(label, start) {
  if (!player.ready || saving) {
    return;
  }
  const { name, labelled, rewarded, start: before } = episodes[current];
  const old = before === null ? 'failure' : 'success';
  const index = await save(name, label, start, rewards);
  if (index < 0) {
    return;
  }
  const was = labelled ? old : null;
  done.push({ name, label: was, start: before, reward: rewarded });
  drawState();
  if (label && index === current && neighbour(1, isOpen) >= 0) {
    const text = $('message').textContent;
    await advance();
    say(text);
  } else if (!episodes.some(isOpen)) {
    say(`${$('message').textContent} All episodes are labelled.`);
  }
}

// To the next one: of the unlabelled, if these are wanted.
function advance() {
  const wanted = $('only').checked ? isOpen : (x) => !x.problem;
  return open(neighbour(1, wanted));
}

async function undo() {
  if (saving || !done.length) {
    return;
  }
  const { name, label, start, reward } = done[done.length - 1];
  const index = await save(name, label, start, reward);
  if (index >= 0) {
    done.pop();
    const text = $('message').textContent;
    await open(index);
    say(text);
  }
}

// Keys and buttons.

const ACTIONS = {
  play: () => (player.playing ? player.pause() : player.play()),
  back: () => player.step(-1),
  forward: () => player.step(1),
  slower: () => player.accelerate(-1),
  faster: () => player.accelerate(1),
  success: () => give('success', player.last),
  here: () => player.record && give('success', player.record),
  failure: () => give('failure', null),
  remove: () => episodes[current]?.labelled && give(null, null),
  undo,
  next: () => move(1),
  previous: () => move(-1),
  only: () => {
    $('only').checked = !$('only').checked;
    drawState();
  },
  begin: () => player.step(-Infinity),
  end: () => player.step(Infinity),
};
const KEYS = {
  ' ': 'play',
  ArrowLeft: 'back',
  ArrowRight: 'forward',
  '-': 'slower',
  '+': 'faster',
  '=': 'faster',
  s: 'success',
  h: 'here',
  f: 'failure',
  x: 'remove',
  u: 'undo',
  n: 'next',
  p: 'previous',
  o: 'only',
  Home: 'begin',
  End: 'end',
};
// What a key does again and again while it is held.
const REPEATED = ['back', 'forward'];

document.addEventListener('keydown', (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const name = KEYS[key];
  const pressed = event.target.matches('button, [type=checkbox]');
  if (
    !name ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    (key === ' ' && pressed)
  ) {
    return;
  }
  event.preventDefault();
  if (!event.repeat || REPEATED.includes(name)) {
    ACTIONS[name]();
  }
});

for (const name of Object.keys(ACTIONS)) {
  const button = $(name);
  if (button instanceof HTMLButtonElement) {
    button.addEventListener('click', ACTIONS[name]);
  }
}
// After the mouse, the space bar plays again.
document.addEventListener('click', (event) => {
  const control = event.target.closest('button, [type=checkbox]');
  if (control && event.detail) {
    control.blur();
  }
});
$('only').addEventListener('change', drawState);
$('time').addEventListener('input', () => {
  player.pause();
  player.show(Number($('time').value));
});

async function start() {
  try {
    const said = await (await ask('api/episodes')).json();
    episodes = said.episodes;
    rewards = said.reward;
    $('place').textContent = `${said.directory}, observation ${said.key}`;
    $('note').textContent = said.reward
      ? 'Rewards become 1 from the success on, and 0 before.'
      : 'Rewards stay as they are.';
    const first = episodes.findIndex(isOpen);
    await open(Math.max(0, first));
    if (first < 0) {
      say('All episodes are labelled.');
    }
  } catch (error) {
    $('count').textContent = '';
    say(error.message, true);
  }
}

drawState();
start();
