/** Addresses as operators write them, and the one form in which they go on. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PhaulError } from '../../src/failure/phaul-error.js';
import { formatAddress, parseAddressOrder } from '../../src/network/address.js';
import { canonicalIp, ipBytes, ipText, sameSubnet } from '../../src/network/ip-address.js';

describe('parseAddressOrder', () => {
  test.each([
    ['10.0.0.5', { family: 4, ip: '10.0.0.5', prefixLength: null, device: null }],
    ['10.0.0.5/24@eth0', { family: 4, ip: '10.0.0.5', prefixLength: 24, device: 'eth0' }],
    ['2001:DB8:0:0:0::5@br-lan.7', { family: 6, ip: '2001:db8::5', prefixLength: null, device: 'br-lan.7' }],
    ['fd00::1/128', { family: 6, ip: 'fd00::1', prefixLength: 128, device: null }],
  ])('takes %s', (text, order) => {
    expect(parseAddressOrder(text)).toEqual(order);
  });

  test.each([
    '',
    '10.0.0',
    '010.0.0.5',
    '10.0.0.5/',
    '10.0.0.5/0',
    '10.0.0.5/33',
    '10.0.0.5/08',
    '10.0.0.5@',
    '10.0.0.5@eth0/24',
    '10.0.0.5@averylongdevice1',
    '10.0.0.5@-f',
    '127.0.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
    '::ffff:10.0.0.5',
    ' 10.0.0.5',
    '10.0.0.5\n',
  ])('refuses %j', (text) => {
    expect(() => parseAddressOrder(text)).toThrow(expect.objectContaining({ code: 'bad-address' }));
  });

  test('danger 15: nothing that is accepted can carry another word into a command or into nft text', () => {
    const hostile = fc.stringMatching(/^10\.0\.0\.5[/@ -~\n]{0,20}$/);
    fc.assert(
      fc.property(hostile, (text) => {
        let order: ReturnType<typeof parseAddressOrder>;
        try {
          order = parseAddressOrder(text);
        } catch (failure) {
          return failure instanceof PhaulError;
        }
        return /^[0-9a-f.:]+(\/[0-9]+)?(@[A-Za-z0-9_][A-Za-z0-9_.-]*)?$/.test(formatAddress(order));
      }),
    );
  });

  test('reads back what it writes', () => {
    const address = fc.oneof(fc.ipV4(), fc.ipV6());
    fc.assert(
      fc.property(
        address,
        fc.option(fc.integer({ min: 1, max: 32 })),
        fc.option(fc.constantFrom('eth0', 'a')),
        (ip, length, device) => {
          const text = `${ip}${length === null ? '' : `/${length}`}${device === null ? '' : `@${device}`}`;
          let order: ReturnType<typeof parseAddressOrder>;
          try {
            order = parseAddressOrder(text);
          } catch {
            return; // an address that cannot move
          }
          expect(parseAddressOrder(formatAddress(order))).toEqual(order);
        },
      ),
    );
  });
});

describe('canonical form', () => {
  // RFC 5952, section 4.
  test.each([
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['::ffff:1.2.3.4', '::ffff:102:304'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalIp(text)).toBe(canonical);
  });

  test('bytes survive', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.array(fc.constantFrom(0, 1, 255), { minLength: 16, maxLength: 16 }).map((each) => Uint8Array.from(each)),
    );
    fc.assert(
      fc.property(bytes, (each) => {
        expect(ipBytes(ipText(each))).toEqual(each);
      }),
    );
  });
});

test('sameSubnet compares exactly the first bits', () => {
  const bytes = (text: string) => ipBytes(text) ?? new Uint8Array();
  expect(sameSubnet(bytes('10.0.1.255'), bytes('10.0.0.1'), 23)).toBe(true);
  expect(sameSubnet(bytes('10.0.1.255'), bytes('10.0.0.1'), 24)).toBe(false);
  expect(sameSubnet(bytes('10.0.0.1'), bytes('::1'), 0)).toBe(false);
});
