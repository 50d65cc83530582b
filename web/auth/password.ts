import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * Whether an `Authorization` header contains the password (basic authentication, any user name). Compares hashes, so
 * that the timing reveals neither the length nor a part of the password.
 */
export function isAuthorised(header: string, password: string): boolean {
  const encoded = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(header)?.[1] ?? '';
  const credentials = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = credentials.indexOf(':');
  return timingSafeEqual(hash(credentials.slice(colon + 1)), hash(password)) && colon !== -1;
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
