import test from 'ava';
import { isAuthorised } from './password.js';

const basic = (credentials: string): string => `Basic ${Buffer.from(credentials).toString('base64')}`;

test('accepts the password with any user name', (t) => {
  t.true(isAuthorised(basic('anyone:s3cret:ä'), 's3cret:ä'));
  t.true(isAuthorised(basic(':s3cret'), 's3cret'));
  t.true(isAuthorised(basic('a:s3cret').replace('Basic', 'basic'), 's3cret'));
});

test('refuses anything else', (t) => {
  for (const header of [
    '',
    'Basic',
    'Basic !!!',
    basic('s3cret'),
    basic('a:s3cre'),
    basic('a:s3crett'),
    basic('s3cret:'),
    'Bearer s3cret',
  ]) {
    t.false(isAuthorised(header, 's3cret'), header);
  }
});
