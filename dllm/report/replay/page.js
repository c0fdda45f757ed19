"use strict";
(() => {
  const films = JSON.parse(document.getElementById("films").textContent);
  const last = Math.max(...films.map((film) => film.frames.length));
  const BINS = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];
  const NONE = { events: {}, marks: {}, cells: [], alternatives: [] };
  const SIGNS = [
    ["fresh", "committed now"], ["masked", "masked"], ["given", "given with the prompt"], ["in-block", "block"], ["away", "not computed"],
    ["remasked", "masked again"], ["edited", "overwritten"], ["refused", "refused by the constraint"],
    ["forced", "by the progress guard"], ["filled", "filled behind the end"], ["inserted", "inserted"],
    ["marked", "named by the sampler"], ["tried", "tried in a branch"],
  ];
  const WORDS = {
    committed: "committed", remasked: "masked again", edited: "overwrote", filled: "filled",
    inserted: "inserted", cut: "cut off",
  };
  const touched = { nodes: 0 };
  const by = (id) => document.getElementById(id);

  function make(tag, name, text) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function level(p) {
    let bin = 0;
    while (bin < BINS.length && p >= BINS[bin]) bin++;
    return bin;
  }

  const rank = (forward) => Math.min(8, Math.floor((9 * (forward - 1)) / Math.max(1, last)));
  const percent = (p) => (p >= 0.9995 ? "100" : p < 0.0005 ? "< 0.1" : (100 * p).toFixed(1)) + " %";

  /** Width of a text in characters of a monospaced font; wide scripts take two. */
  function columns(text) {
    let width = 0;
    for (const character of text) width += character.codePointAt(0) > 0x2e7f ? 2 : 1;
    return width;
  }

  function visible(text) {
    const shown = text.replace(/\r?\n/g, "↵").replace(/\t/g, "⇥").trim();
    return shown || "␣";
  }

  /** Positions as text: 1-4, 7. */
  function spans(positions) {
    const sorted = [...positions].sort((a, b) => a - b);
    const parts = [];
    for (let i = 0; i < sorted.length; ) {
      let j = i;
      while (sorted[j + 1] === sorted[j] + 1) j++;
      parts.push(i === j ? `${sorted[i]}` : `${sorted[i]}–${sorted[j]}`);
      i = j + 1;
    }
    return parts.length > 8 ? `${parts.slice(0, 8).join(", ")}, …` : parts.join(", ");
  }

  class Panel {
    constructor(film, number) {
      this.film = film;
      this.number = number;
      this.room = Math.max(film.length, ...film.frames.map((frame) => frame.length));
      this.shown = film.words.map(visible);
      this.ends = new Set(film.ends);
      this.history = Array.from({ length: this.room }, () => []);
      this.widths = new Uint8Array(this.room).fill(2);
      this.lines = new Set();
      this.scan();
      this.build();
      this.reset();
    }

    /** What each position ever holds: its width is fixed, so that nothing moves while playing. */
    scan() {
      const final = new Int32Array(this.room).fill(-1);
      const widen = (at, token) => {
        if (token < 0 || this.ends.has(token)) return;
        this.widths[at] = Math.max(this.widths[at], Math.min(18, columns(this.shown[token])));
      };
      final.set(this.film.given);
      final.forEach((token, at) => widen(at, token));
      this.film.frames.forEach((frame, index) => {
        for (const [at, token] of frame.cells || []) {
          final[at] = token;
          widen(at, token);
        }
        const note = (at, text) => at >= 0 && at < this.room && this.history[at].push([index + 1, text]);
        for (const [name, positions] of Object.entries(frame.events || {})) {
          if (name !== "committed") for (const at of positions) note(at, WORDS[name]);
        }
        for (const [at, token] of frame.refused || []) note(at, `refused “${this.shown[token]}”`);
        for (const [name, positions] of Object.entries(frame.marks || {})) {
          for (const at of positions) note(at, name);
        }
      });
      final.forEach((token, at) => {
        if (token >= 0 && this.film.words[token].includes("\n")) this.lines.add(at);
      });
    }

    build() {
      const { film } = this;
      const panel = make("section", "panel");
      panel.setAttribute("aria-label", film.title);
      const head = make("div", "head");
      head.append(make("h2", "", film.title));
      if (film.correct !== null) {
        head.append(make("span", `verdict ${film.correct ? "good" : "bad"}`,
          film.correct ? "✓ correct" : "✗ not correct"));
      }
      this.stats = {};
      const stats = make("dl", "stats");
      for (const name of ["forward", "decided", "per forward", "block", "computed"]) {
        const pair = make("div");
        this.stats[name] = make("dd");
        pair.append(make("dt", "", name), this.stats[name]);
        stats.append(pair);
      }
      this.canvas = make("div", `canvas${this.room > 600 ? " many" : this.room > 160 ? " some" : ""}`);
      const attributes = {
        role: "listbox", tabindex: "0", "aria-label": `Answer of ${film.title}, ${film.length} positions`,
      };
      for (const [name, value] of Object.entries(attributes)) this.canvas.setAttribute(name, value);
      this.cells = [];
      const all = document.createDocumentFragment();
      for (let at = 0; at < this.room; at++) {
        const cell = make("span", "cell", "\u00a0");
        cell.id = `cell-${this.number}-${at}`;
        cell.setAttribute("role", "option");
        cell.setAttribute("aria-selected", "false");
        cell.style.width = `calc(${this.widths[at]}ch + 12px)`;
        this.cells.push(cell);
        all.append(cell);
        if (this.lines.has(at)) all.append(make("span", "line"));
      }
      this.canvas.append(all);
      this.event = make("p", "event");
      this.map = make("div", "map");
      this.map.setAttribute("role", "img");
      this.map.setAttribute("aria-label", "Position against forward: when each token was committed");
      this.picture = make("canvas");
      this.line = make("div", "head-line");
      this.map.append(this.picture);
      if (film.fork !== null) {
        const fork = make("div", "fork");
        fork.style.left = `${(100 * film.fork) / last}%`;
        fork.title = `other options from forward ${film.fork} on`;
        this.map.append(fork);
      }
      this.map.append(this.line);
      const note = make("p", "map-note");
      note.append(make("span", "", "↓ position, → forward; click to seek"), make("span", "", `${last}`));
      panel.append(head, stats, this.canvas, this.map, note, this.event);
      by("stage").append(panel);
      this.map.addEventListener("pointerdown", (event) => {
        const box = this.map.getBoundingClientRect();
        go(Math.ceil((last * (event.clientX - box.left)) / box.width));
      });
      this.canvas.addEventListener("pointerover", (event) => {
        const at = this.cells.indexOf(event.target);
        if (at >= 0) point(this, at);
      });
      this.canvas.addEventListener("pointerleave", () => point(null));
      this.canvas.addEventListener("focus", () => {
        if (this.canvas.matches(":focus-visible")) point(this, this.active || 0);
      });
      this.canvas.addEventListener("blur", () => point(null));
      this.canvas.addEventListener("keydown", (event) => this.move(event));
    }

    reset() {
      this.at = 0;
      this.token = new Int32Array(this.room).fill(-1);
      this.token.set(this.film.given);
      this.p = new Array(this.room).fill(null);
      this.since = new Int32Array(this.room);
      this.length = this.film.length;
      this.decided = this.film.given.filter((token) => token >= 0).length;
      this.known = new Map();
      this.stale = null;
      // What is shown stays: a seek backwards writes what differs, too.
      if (!this.texts) {
        this.texts = new Array(this.room).fill("\u00a0");
        this.names = new Array(this.room).fill("cell");
        this.noted = { extra: new Map(), bounds: [0, 0], window: [] };
      }
    }

    set(at, token) {
      this.decided += (token >= 0) - (this.token[at] >= 0);
      this.token[at] = token;
      if (this.stale) this.stale.add(at);
    }

    /** The state after forward `k`: from where it is, or from the start when it lies behind. */
    seek(k) {
      k = Math.min(k, this.film.frames.length);
      if (k < this.at) this.reset();
      while (this.at < k) {
        const frame = this.film.frames[this.at++];
        for (const [at, token, p, since] of frame.cells || []) {
          this.set(at, token);
          this.p[at] = p;
          this.since[at] = since;
        }
        for (let at = frame.length; at < this.length; at++) this.set(at, -1);
        if (this.length !== frame.length) this.stale = null;
        this.length = frame.length;
        for (const [at, tokens, likely] of frame.alternatives || []) {
          this.known.set(at, [tokens, likely, this.at]);
          if (this.stale) this.stale.add(at);
        }
      }
    }

    frame() {
      return this.at ? this.film.frames[this.at - 1] : NONE;
    }

    /** Positions that may look different now; null = all. */
    suspects(extra, bounds, window) {
      const { stale, noted } = this;
      this.noted = { extra, bounds, window };
      this.stale = new Set();
      if (!stale) return null;
      for (const marks of [noted.extra, extra]) for (const at of marks.keys()) stale.add(at);
      const cover = (spans) => {
        for (const [from, to] of spans) {
          for (let at = Math.max(0, from); at < Math.min(to, this.room); at++) stale.add(at);
        }
      };
      const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
      if (!same(noted.bounds, bounds)) cover([noted.bounds, bounds]);
      if (!same(noted.window, window)) cover([...noted.window, ...window]);
      return [...stale].sort((a, b) => a - b);
    }

    /** Writes the cells that are no longer as they are shown, and no others. */
    draw() {
      const frame = this.frame();
      const extra = new Map();
      const add = (at, name) => extra.set(at, (extra.get(at) || "") + name);
      const events = frame.events || {};
      for (const at of events.committed || []) add(at, frame.forced ? " fresh forced" : " fresh");
      for (const name of ["edited", "remasked", "filled", "inserted"]) {
        for (const at of events[name] || []) add(at, ` ${name}`);
      }
      for (const [at] of frame.refused || []) add(at, " refused");
      for (const positions of Object.values(frame.marks || {})) for (const at of positions) add(at, " marked");
      for (const branch of frame.branches || []) for (const [at] of branch) add(at, " tried");
      const [from, to] = frame.bounds || [0, 0];
      const window = frame.window || [];
      const near = new Uint8Array(this.room);
      for (const [start, end] of window) near.fill(1, Math.max(0, start), Math.max(0, end));
      this.canvas.classList.toggle("windowed", window.length > 0);
      let first = -1;
      for (const at of this.suspects(extra, [from, to], window) || this.cells.keys()) {
        const token = this.token[at];
        let name = "cell";
        let text = "\u00a0";
        if (at >= this.length) name += " gone";
        else if (token < 0) {
          const known = this.known.get(at);
          name += " masked";
          if (known) {
            text = this.ends.has(known[0][0]) ? "∎" : this.shown[known[0][0]];
            name += ` b${level(known[1][0])}`;
          }
        } else {
          const end = this.ends.has(token);
          text = end ? "∎" : this.shown[token];
          if (!this.since[at]) name += " given";
          else {
            name += this.p[at] === null ? " px" : ` p${level(this.p[at])}`;
            name += ` s${rank(this.since[at])}`;
          }
          if (end) name += " end";
        }
        if (at >= from && at < to) name += " in-block";
        if (near[at]) name += " near";
        const more = extra.get(at);
        if (more) {
          name += more;
          if (first < 0) first = at;
        }
        if (name !== this.names[at] || text !== this.texts[at]) {
          const cell = this.cells[at];
          if (name !== this.names[at]) cell.className = this.names[at] = name;
          if (text !== this.texts[at]) cell.firstChild.data = this.texts[at] = text;
          touched.nodes++;
        }
      }
      this.tell(frame);
      if (first >= 0) this.follow(first);
      this.line.style.transform = `translateX(${(now / Math.max(1, last)) * this.mapWidth - 1}px)`;
    }

    tell(frame) {
      const { decided } = this;
      const set = (name, text, small) => {
        const node = this.stats[name];
        if (node.dataset.shown === text + small) return;
        node.dataset.shown = text + small;
        node.textContent = text;
        if (small) node.append(make("small", "", small));
      };
      const count = this.film.frames.length;
      set("forward", `${this.at}`, ` of ${count}`);
      set("decided", `${decided}`, ` of ${this.length}`);
      set("per forward", this.at ? (decided / this.at).toFixed(2) : "–", "");
      const bounds = frame.bounds;
      set("block", this.at ? `${frame.block + 1}` : "–", bounds ? ` ${bounds[0]}–${bounds[1] - 1}` : "");
      set("computed", this.at ? `${frame.fed}` : "–", this.at ? " rows" : "");
      this.said = this.sentence(frame);
      if (this.event.dataset.shown !== this.said) {
        this.event.dataset.shown = this.said;
        const [lead, ...rest] = this.said.split(": ");
        this.event.replaceChildren(make("b", "", lead), rest.length ? `: ${rest.join(": ")}` : "");
      }
    }

    sentence(frame) {
      if (!this.at) return this.decided ? `${this.decided} tokens are given` : "Everything is masked";
      const kinds = { step: "step", refresh: "cache refresh", prefill: "prefill", commit: "cache commit" };
      let lead = `Forward ${this.at}, ${kinds[frame.kind]}`;
      if (frame.model) lead += ` of ${frame.model}`;
      if (now > this.film.frames.length) lead = `Finished at forward ${this.film.frames.length}`;
      const parts = [];
      for (const [name, positions] of Object.entries(frame.events || {})) {
        parts.push(`${WORDS[name]} ${positions.length} at ${spans(positions)}`);
      }
      if (frame.forced) parts.push("by the progress guard");
      for (const [name, positions] of Object.entries(frame.marks || {})) parts.push(`${name} ${spans(positions)}`);
      if (frame.refused) {
        const refused = frame.refused.slice(0, 4).map(([at, token]) => `“${this.shown[token]}” at ${at}`);
        parts.push(`the constraint refused ${refused.join(", ")}${frame.refused.length > 4 ? ", …" : ""}`);
      }
      if (frame.rewritten) parts.push("rewritten by the constraint");
      if (frame.branches) parts.push(`branch ${frame.adopted + 1} of ${frame.branches.length} adopted`);
      if (frame.worth) {
        const tried = frame.worth.map(([token, worth]) => `“${this.shown[token]}” ${worth}`);
        parts.push(`tried, with their worth: ${tried.join(", ")}`);
      }
      if (this.film.fork !== null && this.at === this.film.fork) parts.push("from here on other options");
      return parts.length ? `${lead}: ${parts.join("; ")}` : `${lead}: nothing decided`;
    }

    /** Keeps what happens in sight; places are read once, not while playing. */
    follow(at) {
      const top = this.tops[at];
      const box = this.canvas;
      if (top < box.scrollTop || top > box.scrollTop + this.height - 40) {
        box.scrollTop = Math.max(0, top - this.height / 3);
      }
    }

    /** Reads the layout, which only another window size changes. */
    measure() {
      this.height = this.canvas.clientHeight;
      this.tops = this.cells.map((cell) => cell.offsetTop);
      this.lefts = this.cells.map((cell) => cell.offsetLeft);
      this.mapWidth = this.map.clientWidth;
      this.paint();
    }

    paint() {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [this.map.clientWidth, this.map.clientHeight];
      this.picture.width = width * ratio;
      this.picture.height = height * ratio;
      const pen = this.picture.getContext("2d");
      pen.scale(ratio, ratio);
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      const byOrder = document.body.dataset.colour === "order";
      const [top, tall] = [9, height - 12];
      const [wide, high] = [width / Math.max(1, last), tall / this.room];
      const x = (forward) => (forward - 1) * wide;
      const y = (at) => top + at * high;
      this.film.frames.forEach((frame, index) => {
        const k = index + 1;
        if (frame.bounds) {
          pen.fillStyle = colour("--line");
          pen.globalAlpha = 0.55;
          const start = Math.max(0, frame.bounds[0]);
          pen.fillRect(x(k), y(start), wide + 0.5, (frame.bounds[1] - start) * high);
          pen.globalAlpha = 1;
        }
        for (const [at, token, p, since] of frame.cells || []) {
          if (since !== k || token < 0) continue;
          pen.fillStyle = byOrder ? colour(`--s${rank(k)}`) : colour(p === null ? "--unknown" : `--c${level(p)}`);
          if (this.ends.has(token)) pen.globalAlpha = 0.6;
          const [w, h] = [Math.max(2, wide - (wide > 6 ? 2 : 0.4)), Math.max(1.6, high - (high > 3 ? 1 : 0))];
          pen.fillRect(x(k) + (wide - w) / 2, y(at), w, h);
          pen.globalAlpha = 1;
        }
        pen.strokeStyle = colour("--bad");
        for (const at of (frame.events || {}).remasked || []) {
          pen.lineWidth = 1.5;
          pen.strokeRect(x(k) + wide / 2 - 2.5, y(at) + high / 2 - 2.5, 5, 5);
        }
        if (frame.kind !== "step") {
          pen.fillStyle = colour("--soft");
          pen.beginPath();
          const middle = x(k) + wide / 2;
          pen.moveTo(middle - 4, 1);
          pen.lineTo(middle + 4, 1);
          pen.lineTo(middle, 7);
          pen.fill();
        }
      });
    }

    move(event) {
      const at = this.active || 0;
      const rows = (step) => {
        let next = at;
        while (next >= 0 && next < this.length && this.tops[next] === this.tops[at]) next += step;
        if (next < 0 || next >= this.length) return at;
        const row = this.tops[next];
        let best = next;
        for (; next >= 0 && next < this.length && this.tops[next] === row; next += step) {
          const off = (i) => Math.abs(this.lefts[i] - this.lefts[at]);
          if (off(next) < off(best)) best = next;
        }
        return best;
      };
      const moves = {
        ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => rows(1), ArrowUp: () => rows(-1),
      };
      if (!moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      point(this, Math.max(0, Math.min(this.length - 1, moves[event.key]())));
      this.follow(this.active);
    }

    describe(at) {
      const token = this.token[at];
      const known = this.known.get(at);
      const lines = [];
      if (at >= this.length) return ["cut off", lines, null];
      const title = token < 0 ? `position ${at}: masked` : `position ${at}: ${JSON.stringify(this.film.words[token])}`;
      if (token >= 0) {
        const p = this.p[at] === null ? "probability not known" : `probability ${percent(this.p[at])}`;
        lines.push(this.since[at] ? `written at forward ${this.since[at]}, ${p}` : "given with the prompt");
      }
      const past = this.history[at].filter(([forward]) => forward <= this.at).slice(-4);
      for (const [forward, text] of past) lines.push(`${text} at forward ${forward}`);
      (this.frame().branches || []).forEach((branch, number) => {
        const tried = branch.find(([position]) => position === at);
        if (!tried) return;
        const adopted = number === this.frame().adopted ? " (adopted)" : "";
        const worth = (this.frame().worth || []).find(([token]) => token === tried[1]);
        const compared = worth ? `, worth ${worth[1]}` : "";
        lines.push(`branch ${number + 1}${adopted}: ${this.shown[tried[1]]}${compared}`);
      });
      if (known) lines.push(`predicted at forward ${known[2]}:`);
      else if (!this.film.alternatives) lines.push("alternatives: decode with alternatives=5");
      return [title, lines, known];
    }
  }

  let now = -1;
  let playing = false;
  const pointed = { panel: null, at: -1 };
  const card = by("card");

  function point(panel, at = -1) {
    const before = pointed.panel;
    if (before) before.cells[pointed.at].setAttribute("aria-selected", "false");
    pointed.panel = panel;
    pointed.at = at;
    card.hidden = !panel;
    if (!panel) return;
    panel.active = at;
    const cell = panel.cells[at];
    cell.setAttribute("aria-selected", "true");
    panel.canvas.setAttribute("aria-activedescendant", cell.id);
    fill(panel, at);
    const box = cell.getBoundingClientRect();
    const wide = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left, wide - 288));
    const below = box.bottom + 10 + card.offsetHeight < window.innerHeight;
    const top = below ? box.bottom + 10 : box.top - 10 - card.offsetHeight;
    card.style.left = `${left + window.scrollX}px`;
    card.style.top = `${Math.max(4, top) + window.scrollY}px`;
  }

  function fill(panel, at) {
    const [title, lines, known] = panel.describe(at);
    card.replaceChildren(make("h3", "", title), ...lines.map((line) => make("p", "", line)));
    if (known) {
      const list = make("ol");
      known[0].forEach((token, i) => {
        const line = make("li", token === panel.token[at] ? "taken" : "");
        const bar = make("i");
        bar.style.width = `${100 * known[1][i]}%`;
        line.append(bar, make("span", "", panel.shown[token]), make("span", "", percent(known[1][i])));
        list.append(line);
      });
      card.append(list);
    }
    panel.cells[at].setAttribute("aria-label", [title, ...lines].join(", "));
  }

  const panels = films.map((film, number) => new Panel(film, number));

  /** Shows the canvases after forward `k`. */
  function go(k) {
    k = Math.max(0, Math.min(last, k));
    if (k === now) return;
    now = k;
    touched.nodes = 0;
    for (const panel of panels) {
      panel.seek(k);
      panel.draw();
    }
    if (pointed.panel) fill(pointed.panel, pointed.at);
    by("seek").value = k;
    by("seek").setAttribute("aria-valuetext", `forward ${k} of ${last}`);
    by("clock").textContent = `${k} / ${last}`;
    if (!playing) by("said").textContent = panels.map((panel) => panel.said).join(". ");
  }

  let due = 0;
  function tick(time) {
    if (!playing) return;
    const gap = 1000 / Number(by("speed").value);
    if (time >= due) {
      const steps = due ? Math.max(1, Math.floor((time - due) / gap) + 1) : 1;
      due = Math.max(due + steps * gap, time);
      go(now + steps);
      if (now >= last) play(false);
    }
    if (playing) requestAnimationFrame(tick);
  }

  function play(on) {
    if (on && now >= last) go(0);
    playing = on;
    document.body.classList.toggle("playing", on);
    by("play").setAttribute("aria-label", on ? "Pause" : "Play");
    due = 0;
    if (on) requestAnimationFrame(tick);
  }

  function colour(name) {
    document.body.dataset.colour = name;
    for (const button of document.querySelectorAll("button[data-colour]")) {
      button.setAttribute("aria-pressed", String(button.dataset.colour === name));
    }
    for (const panel of panels) panel.paint();
  }

  function predictions(on) {
    document.body.dataset.predictions = on ? "on" : "off";
    by("predictions").setAttribute("aria-pressed", String(on));
  }

  function theme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    by("theme").setAttribute("aria-pressed", String(dark));
    for (const panel of panels) panel.paint();
  }

  const isDark = () => document.documentElement.dataset.theme === "dark";
  const step = (count) => () => { play(false); go(now + count); };
  const ACTIONS = {
    first: () => { play(false); go(0); }, back: step(-1), forth: step(1),
    end: () => { play(false); go(last); }, play: () => play(!playing),
    theme: () => theme(!isDark()),
    predictions: () => predictions(document.body.dataset.predictions !== "on"),
    colour: () => colour(document.body.dataset.colour === "order" ? "confidence" : "order"),
  };
  const KEYS = {
    " ": ACTIONS.play, ArrowRight: step(1), ArrowLeft: step(-1), ".": step(1), ",": step(-1),
    PageDown: step(10), PageUp: step(-10), Home: ACTIONS.first, End: ACTIONS.end,
    c: ACTIONS.colour, p: ACTIONS.predictions, t: ACTIONS.theme, Escape: () => point(null),
  };

  for (const id of ["first", "back", "forth", "end", "play", "theme", "predictions"]) {
    by(id).addEventListener("click", ACTIONS[id]);
  }
  for (const button of document.querySelectorAll("button[data-colour]")) {
    button.addEventListener("click", () => colour(button.dataset.colour));
  }
  by("seek").addEventListener("input", () => { play(false); go(Number(by("seek").value)); });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const tag = event.target.tagName;
    if (tag === "SELECT" || (tag === "BUTTON" && event.key === " ")) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  by("prompt").textContent = films[0].prompt;
  by("stage").classList.toggle("pair", panels.length > 1);
  by("seek").max = last;
  for (const rate of [1, 2, 4, 8, 15, 30, 60]) {
    by("speed").append(new Option(`${rate} / s`, rate));
  }
  by("speed").value = [1, 2, 4, 8, 15, 30, 60].find((rate) => last / rate <= 15) || 60;
  by("predictions").hidden = !films.some((film) => film.alternatives);
  const edges = ["0", ...BINS];
  edges.forEach((edge, bin) => by("scale-confidence").lastElementChild.append(
    make("li", `sample p${bin}`, bin ? `≥ ${String(edge).replace("0.", ".")}` : `< ${BINS[0]}`)));
  for (let bin = 0; bin < 9; bin++) {
    const forward = 1 + Math.ceil((bin * last) / 9);
    if (rank(forward) === bin && forward <= last) {
      by("scale-order").lastElementChild.append(make("li", `sample s${bin}`, `${forward}`));
    }
  }
  const used = new Set(["fresh", "masked"]);
  for (const { frames, given } of films) {
    if (given.length) used.add("given");
    for (const frame of frames) {
      if (frame.bounds) used.add("in-block");
      if (frame.window) used.add("away");
      if (frame.forced) used.add("forced");
      if (frame.refused) used.add("refused");
      if (frame.marks) used.add("marked");
      if ((frame.branches || []).some((branch) => branch.length)) used.add("tried");
      for (const name of Object.keys(frame.events || {})) used.add(name);
    }
  }
  for (const [name, text] of SIGNS) {
    if (!used.has(name)) continue;
    const line = make("li");
    line.append(make("span", ["masked", "given"].includes(name) ? `sample ${name}` : `sample p6 s3 ${name}`, "a"), text);
    by("signs").append(line);
  }

  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  const start = films.find((film) => film.fork !== null);
  for (const panel of panels) panel.measure();
  go(/^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : start ? start.fork : 0);
  let width = by("stage").clientWidth;
  new ResizeObserver(([stage]) => {
    // A sentence of another length changes the height only: nothing that was read.
    if (Math.abs(stage.contentRect.width - width) < 1) return;
    width = stage.contentRect.width;
    for (const panel of panels) {
      panel.measure();
      panel.draw();
    }
  }).observe(by("stage"));
  window.addEventListener("hashchange", () => go(Number(location.hash.slice(1)) || 0));
  window.replay = {
    go, play, last, forward: () => now, touched: () => touched.nodes,
  };
})();
