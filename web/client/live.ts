/**
 * Keeps the page current. Polls the page's own URL with its ETag, and morphs `<main>` into the response. Forms are
 * outside `<main>`, so their input is preserved. Without this script, the page reloads itself.
 */

/** Served in front of this script, in the same file: see `loadAssets`. */
declare const Idiomorph: typeof import('idiomorph').Idiomorph;

/** Timeout of a poll, in milliseconds. */
const pollMsMax = 30_000;

class LivePage {
  readonly #main: HTMLElement;
  readonly #note: HTMLElement;
  readonly #pause: HTMLElement;
  readonly #everyMs: number;
  #etag: string | undefined;
  #updated = clockText();
  #isPaused = false;
  #isStale = false;
  /** Whether the note was written since the last response. */
  #isNoteNew = false;
  #timer: number | undefined;
  #isPolling = false;

  constructor(main: HTMLElement, note: HTMLElement, pause: HTMLElement) {
    this.#main = main;
    this.#note = note;
    this.#pause = pause;
    this.#everyMs = Number(main.dataset['refresh']) * 1000;
    this.#etag = main.dataset['etag'];
  }

  start(): void {
    this.#pause.hidden = false;
    this.#pause.addEventListener('click', () => {
      this.#togglePause();
    });
    document.addEventListener('visibilitychange', () => {
      this.#schedule(0);
    });
    this.#schedule(this.#everyMs);
  }

  #togglePause(): void {
    this.#isPaused = !this.#isPaused;
    this.#pause.setAttribute('aria-pressed', String(this.#isPaused));
    this.#pause.textContent = this.#isPaused ? 'Resume' : 'Pause';
    this.#announce(this.#isPaused ? `Paused at ${this.#updated}` : 'Live again');
    this.#schedule(0);
  }

  /** Sets the only timer. No poll starts while another is in flight. */
  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    if (this.#isPaused || document.hidden || this.#isPolling) return;
    this.#timer = setTimeout(() => void this.#poll(), delayMs);
  }

  async #poll(): Promise<void> {
    this.#isPolling = true;
    try {
      await this.#update();
      this.#updated = clockText();
      if (this.#isStale) this.#announce('Live again');
      this.#isStale = false;
    } catch (error) {
      const reason = error instanceof StatusError ? error.message : 'no response from the server';
      if (!this.#isStale) this.#announce(`Stale since ${this.#updated}: ${reason}. Retrying.`);
      this.#isStale = true;
    }
    document.body.classList.toggle('stale', this.#isStale);
    this.#isPolling = false;
    this.#schedule(this.#everyMs);
  }

  async #update(): Promise<void> {
    const headers = { 'X-Poll': '1', 'If-None-Match': this.#etag ?? '', 'Cache-Control': 'max-age=0' };
    const response = await fetch(location.href, { headers, signal: AbortSignal.timeout(pollMsMax) });
    if (!response.ok && response.status !== 304) throw new StatusError(response.status);
    // A note stays for one update.
    if (!this.#isNoteNew && !this.#isPaused) this.#note.textContent = '';
    this.#isNoteNew = false;
    if (!response.ok || this.#isPaused) return;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    this.#show(page, response.headers.get('ETag') ?? undefined);
  }

  #show(page: Document, etag: string | undefined): void {
    const content = page.querySelector<HTMLElement>('main[data-refresh]');
    // Another version of the program, or another kind of page.
    if (content === null || content.dataset['version'] !== this.#main.dataset['version']) {
      location.reload();
      return;
    }
    morph(this.#main, content);
    this.#etag = etag;
    document.title = page.title;
    const stateBefore = this.#main.dataset['state'];
    this.#main.dataset['state'] = content.dataset['state'] ?? '';
    if (stateBefore !== content.dataset['state']) this.#announce(content.dataset['status'] ?? '');
  }

  #announce(text: string): void {
    this.#note.textContent = text;
    this.#isNoteNew = true;
  }
}

class StatusError extends Error {
  constructor(status: number) {
    super(`the server responded with status ${status}`);
  }
}

/** Replaces the content of `main`. What is open stays open, and what is selected or focused stays in place. */
function morph(main: HTMLElement, content: HTMLElement): void {
  const selection = getSelection();
  const isSelected = (node: Node): boolean => selection?.isCollapsed === false && selection.containsNode(node, true);
  void Idiomorph.morph(main, [...content.childNodes], {
    morphStyle: 'innerHTML',
    callbacks: {
      beforeAttributeUpdated: (name, node) => !(name === 'open' && node.localName === 'details'),
      beforeNodeMorphed: (node) => !(node.parentNode === main && isSelected(node)),
      beforeNodeRemoved: (node) => !node.contains(document.activeElement),
    },
  });
}

function clockText(): string {
  return `${new Date().toISOString().slice(11, 19)} UTC`;
}

const main = document.querySelector<HTMLElement>('main[data-refresh]');
const note = document.getElementById('live');
const pause = document.getElementById('pause');
if (main !== null && note !== null && pause !== null) new LivePage(main, note, pause).start();
