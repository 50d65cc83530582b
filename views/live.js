/*
 * Keeps the page current: asks for its own URL again, with the ETag of what it shows, and morphs <main> into the answer. Forms
 * are outside <main>, so nothing that is being typed is touched. Without this script the page loads itself again.
 */
(() => {
  const main = document.querySelector('main[data-refresh]');
  const note = document.getElementById('live');
  const pause = document.getElementById('pause');
  if (main === null || note === null || pause === null) return;
  const everyMs = Number(main.dataset.refresh) * 1000;
  const clock = () => `${new Date().toISOString().slice(11, 19)} UTC`;
  let etag = main.dataset.etag;
  let updated = clock();
  let paused = false;
  let stale = false;
  let isNew = false;
  let timer;

  pause.hidden = false;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    pause.textContent = paused ? 'Resume' : 'Pause';
    say(paused ? `Paused at ${updated}` : 'Live again');
    next(0);
  });
  document.addEventListener('visibilitychange', () => next(0));
  next(everyMs);

  // One timer, set again when an answer is there: no request is sent while another is under way.
  function next(ms) {
    clearTimeout(timer);
    if (!paused && !document.hidden && timer !== null) timer = setTimeout(poll, ms);
  }

  async function poll() {
    timer = null;
    try {
      const headers = { 'X-Poll': '1', 'If-None-Match': etag, 'Cache-Control': 'max-age=0' };
      const answer = await fetch(location.href, { headers, signal: AbortSignal.timeout(30_000) });
      if (!answer.ok && answer.status !== 304) throw new Error(`the server answered with status ${answer.status}`);
      // What was said has been there for an update: it goes, unless it is still so.
      if (!isNew && !paused) note.textContent = '';
      isNew = false;
      if (answer.ok && !paused)
        show(new DOMParser().parseFromString(await answer.text(), 'text/html'), answer.headers.get('ETag'));
      updated = clock();
      if (stale) say('Live again');
      stale = false;
    } catch ({ message }) {
      if (!stale)
        say(
          `Stale since ${updated}: ${message.startsWith('the server') ? message : 'no answer from the server'}. Trying again.`,
        );
      stale = true;
    }
    document.body.classList.toggle('stale', stale);
    timer = undefined;
    next(everyMs);
  }

  function show(page, newTag) {
    const content = page.querySelector('main[data-refresh]');
    // A new version of the program, or a page of another kind.
    if (content === null || content.dataset.version !== main.dataset.version) return location.reload();
    const before = main.dataset.state;
    const selection = getSelection();
    Idiomorph.morph(main, [...content.childNodes], {
      morphStyle: 'innerHTML',
      callbacks: {
        // Whoever reads a part keeps it: what is open stays open, and what is selected or focused stays where it is.
        beforeAttributeUpdated: (name, node) => !(name === 'open' && node.localName === 'details'),
        beforeNodeMorphed: (node) =>
          !(node.parentNode === main && !selection.isCollapsed && selection.containsNode(node, true)),
        beforeNodeRemoved: (node) => !node.contains(document.activeElement),
      },
    });
    etag = newTag;
    document.title = page.title;
    main.dataset.state = content.dataset.state;
    if (before !== main.dataset.state) say(content.dataset.says);
  }

  function say(text) {
    note.textContent = text;
    isNew = true;
  }
})();
