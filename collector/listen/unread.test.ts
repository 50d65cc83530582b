import test from 'ava';
import { UnreadBytes } from './unread.js';

test('keeps whole lines as far as there is room, and counts each other line once, however it was cut', (t) => {
  const text = 'first\nsecond\nthird\nfourth';
  for (let chunkBytes = 1; chunkBytes <= text.length; chunkBytes += 1) {
    for (let roomBytes = 0; roomBytes <= text.length + 1; roomBytes += 1) {
      const room = { bytes: roomBytes };
      const unread = new UnreadBytes(room);
      for (let at = 0; at < text.length; at += chunkBytes) unread.add(Buffer.from(text.slice(at, at + chunkBytes)));
      const kept = unread.take().toString();
      t.true(text.startsWith(kept) && kept.length <= roomBytes);
      t.is(unread.bytes, kept.length);
      t.is(room.bytes, roomBytes - kept.length);
      const lines = kept.split('\n').length - (kept === '' || kept.endsWith('\n') ? 1 : 0);
      t.is(lines + unread.droppedLines, 4, `${chunkBytes} ${roomBytes}`);
    }
  }
});
