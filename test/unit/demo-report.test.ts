/** The demo must never say that nothing was lost when something was. */
import { describe, expect, it } from 'vitest';
import { type DemoFacts, reportLines, violations } from '../../src/demo/demo-report.js';
import type { ClientReport } from '../../src/lab/clients.js';

const clients: ClientReport = {
  connections: 2,
  lost: 0,
  errors: 0,
  corrupt: 0,
  requests: 1000,
  portsBefore: [40_001, 40_002],
  portsAfter: [40_002, 40_001],
  longestSilenceMs: { each: [30, 31], p50: 30, max: 31 },
  longestReplyMs: { p50: 30, max: 31 },
  hostAnswers: new Map([
    ['a', 500],
    ['b', 500],
  ]),
  newConnections: { ok: 50, failed: 0, maxMs: 40 },
  badPages: 0,
  firstError: null,
};

const whole: DemoFacts = {
  migration: {
    id: 'm1',
    outcome: 'moved',
    source: 'a',
    destination: 'b',
    pid: 30_000,
    phases: [{ phase: 'checking', ms: 100 }],
    frozenMs: 25,
    bytes: 2 ** 20,
    images: 12,
    replayedPackets: 3,
    findings: [],
    remarks: ['a remark'],
    timeline: { source: [], destination: [] },
    imagesFolder: null,
  },
  clients,
  quietMs: 0.5,
  memoryMib: 1,
  aliveOnSource: false,
  aliveOnDestination: true,
  nameBefore: 'a',
  leftovers: [],
};

describe('report of the demo', () => {
  it('finds nothing wrong with a whole move, and says what it saw', () => {
    expect(violations(whole)).toEqual([]);
    const text = reportLines(whole).join('\n');
    for (const part of ['2 of 2 kept', '0 bad pages', '30.0 ms without a reply', 'a remark', 'a before, b after']) {
      expect(text).toContain(part);
    }
  });

  it.each<[string, Partial<DemoFacts>]>([
    ['a second copy', { aliveOnSource: true }],
    ['no copy', { aliveOnDestination: false }],
    ['a lost reply', { clients: { ...clients, lost: 1 } }],
    ['a broken connection', { clients: { ...clients, errors: 1, portsAfter: [40_001] } }],
    ['another local port', { clients: { ...clients, portsAfter: [40_001, 40_003] } }],
    ['a wrong reply', { clients: { ...clients, corrupt: 1 } }],
    ['a refused new connection', { clients: { ...clients, newConnections: { ok: 5, failed: 1, maxMs: 1 } } }],
    ['no new connection at all', { clients: { ...clients, newConnections: { ok: 0, failed: 0, maxMs: 0 } } }],
    ['a bad page', { clients: { ...clients, badPages: 1 } }],
    ['memory that was not verified', { clients: { ...clients, badPages: null } }],
    ['something left behind', { leftovers: ['fence phaul_m1 on a'] }],
    ['silence from the destination', { clients: { ...clients, hostAnswers: new Map([['a', 1000]]) } }],
  ])('tells of %s', (_, change) => {
    expect(violations({ ...whole, ...change })).not.toEqual([]);
  });
});
