// A video on a canvas that can be played, stepped through and sped up.

const FPS = 20; // Records per second at speed 1.
const SPEEDS = [0.125, 0.25, 0.5, 1, 2, 4, 8];

export class Player {
  // `changed` is called after whatever the page shows has changed.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.level = SPEEDS.indexOf(1);
    this.changed = () => {};
    this.clear();
    this.changed = changed; // From here on: it may ask this player.
  }

  get speed() {
    return SPEEDS[this.level];
  }

  get ready() {
    return this.bytes !== null;
  }

  clear() {
    this.bytes = null;
    this.record = 0;
    this.last = 0;
    this.playing = false;
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  // Bytes of images [records, height, width, channels], one channel or three.
  load(bytes, [height, width, channels]) {
    this.bytes = bytes;
    this.channels = channels;
    this.last = bytes.length / (height * width * channels) - 1;
    this.canvas.height = height;
    this.canvas.width = width;
    this.show(0);
  }

  show(record) {
    if (!this.ready) {
      return;
    }
    this.record = Math.min(Math.max(record, 0), this.last);
    const { width, height } = this.canvas;
    const image = this.context.createImageData(width, height);
    const colour = this.channels === 3 ? 1 : 0; // Grey is repeated.
    let from = this.record * width * height * this.channels;
    for (let to = 0; to < image.data.length; to += 4) {
      for (let i = 0; i < 3; i++) {
        image.data[to + i] = this.bytes[from + colour * i];
      }
      image.data[to + 3] = 255;
      from += this.channels;
    }
    this.context.putImageData(image, 0, 0);
    this.changed();
  }

  step(by) {
    this.playing = false;
    this.show(this.record + by);
  }

  play() {
    if (!this.ready) {
      return;
    }
    if (this.record === this.last) {
      this.show(0);
    }
    const waiting = this.playing;
    this.playing = true;
    this.time = performance.now();
    this.changed();
    if (!waiting) {
      this.wait();
    }
  }

  pause() {
    this.playing = false;
    this.changed();
  }

  accelerate(by) {
    const level = Math.max(0, this.level + by);
    this.level = Math.min(level, SPEEDS.length - 1);
    this.time = performance.now();
    this.changed();
  }

  // Of several that wait, the last one counts: pause and play within a frame.
  wait() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame((time) => this.tick(time));
  }

  tick(time) {
    if (!this.playing) {
      return;
    }
    const each = 1000 / (FPS * this.speed);
    const steps = Math.floor((time - this.time) / each);
    if (steps > 0) {
      this.time += steps * each;
      this.show(this.record + steps);
    }
    if (this.record === this.last) {
      this.pause();
    } else {
      this.wait();
    }
  }
}
