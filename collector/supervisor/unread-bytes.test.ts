import test from 'ava';
import type { Unread } from '../listen/sockets.js';
import { UnreadBytes, UnreadQueue } from './unread-bytes.js';

test('keeps complete lines while there is room, and counts each further line once, for any chunking', (t) => {
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

test('merges connections without bytes into one entry per peer without losing their counts', (t) => {
  const queue = new UnreadQueue();
  const entry: Unread = {
    address: 'tcp://127.0.0.1:9514',
    remoteAddress: '10.0.0.1',
    beginning: undefined,
    bytes: Buffer.alloc(0),
    droppedLines: 0,
  };
  const withBytes = { ...entry, bytes: Buffer.from('first\n') };
  for (let at = 0; at < 1000; at += 1) {
    queue.add(entry);
    queue.add({ ...entry, droppedLines: 2 });
    queue.add({ ...entry, remoteAddress: '10.0.0.2', droppedLines: 1 });
  }
  queue.add(withBytes);
  t.is(queue.size, 3);
  t.deepEqual(queue.takeAll(), [
    { ...entry, droppedLines: 2000 },
    { ...entry, remoteAddress: '10.0.0.2', droppedLines: 1000 },
    withBytes,
  ]);
  t.is(queue.size, 0);
});
