import test from 'ava';
import { isClientError, isServerError, isSuccess, serverErrors, statusClassOf, statusesOfClass } from './status.js';

test('divides statuses into classes, and leaves out what is no HTTP status', (t) => {
  t.deepEqual([100, 199, 200, 308, 404, 499, 500, 599].map(statusClassOf), [1, 1, 2, 3, 4, 4, 5, 5]);
  t.deepEqual([0, 99, 600, 999].map(statusClassOf), [undefined, undefined, undefined, undefined]);
  t.deepEqual(statusesOfClass(4), { min: 400, max: 499 });
  t.deepEqual(serverErrors, { min: 500, max: 599 });
});

test('tells successes, client errors and server errors apart', (t) => {
  for (let status = 0; status < 1000; status += 1) {
    const statusClass = statusClassOf(status) ?? 0;
    t.is(isSuccess(status), statusClass >= 1 && statusClass <= 3, String(status));
    t.is(isClientError(status), statusClass === 4, String(status));
    t.is(isServerError(status), statusClass === 5, String(status));
  }
});
