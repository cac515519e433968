/** Between the messages of the wire and the types of the migration. What a peer sent is checked here, never trusted. */
import { PhaulError } from '../../failure/phaul-error.js';
import type { phaul } from '../../gen/agent.js';
import type { DeliveredImage, Finding, Running } from '../../migration/ports.js';
import type { DestinationWord, SourceWord } from '../../migration/recovery.js';
import type { MigrationEvent } from '../../migration/report.js';
import type { HostFacts } from '../duties.js';
import { parseDelivered } from './order-schema.js';

export function findingToWire(finding: Finding): phaul.v1.Finding.$Properties {
  return { ...finding, pid: finding.pid, fd: finding.fd };
}

/** The host of a finding is who was asked, whatever it says of itself. */
export function findingFromWire(sent: phaul.v1.Finding.$Properties, host: string): Finding {
  const weight = sent.weight;
  if (weight !== 'blocker' && weight !== 'warning' && weight !== 'note')
    throw badAnswer(host, `a finding of weight ${weight}`);
  return {
    code: sent.code ?? '',
    weight,
    host,
    what: sent.what ?? '',
    why: sent.why ?? '',
    remedy: sent.remedy ?? '',
    pid: sent.pid ?? null,
    fd: sent.fd ?? null,
  };
}

export function deliveredFromWire(sent: readonly phaul.v1.DeliveredImage.$Properties[]): DeliveredImage[] {
  return parseDelivered(sent.map(({ name, bytes, hash }) => ({ name, bytes, hash })));
}

export function runningToWire(running: Running): phaul.v1.RunningAnswer.$Properties {
  return { ...running, timeline: [...running.timeline], remarks: [...running.remarks] };
}

export function runningFromWire(sent: phaul.v1.RunningAnswer.$Properties, host: string): Running {
  const pid = sent.pid ?? 0;
  if (pid < 1) throw badAnswer(host, 'a running process without a pid');
  return {
    pid,
    timeline: (sent.timeline ?? []).map(({ step, at }) => ({ step: step ?? '', at: at ?? 0 })),
    replayedPackets: sent.replayedPackets ?? 0,
    remarks: sent.remarks ?? [],
    imagesFolder: sent.imagesFolder ?? null,
  };
}

export function factsToWire(facts: HostFacts): phaul.v1.HelloAnswer.$Properties {
  return { ...facts, engineVersion: facts.engineVersion ?? '', cpuInfo: facts.cpuInfo ?? new Uint8Array(0) };
}

export function factsFromWire(sent: phaul.v1.HelloAnswer): HostFacts {
  return {
    hostName: sent.hostName,
    bootId: sent.bootId,
    kernel: sent.kernel,
    pageSize: sent.pageSize,
    engineVersion: sent.engineVersion === '' ? null : sent.engineVersion,
    cpuInfo: sent.cpuInfo.length === 0 ? null : sent.cpuInfo,
  };
}

const destinationWords: readonly string[] = ['ready', 'committed', 'running', 'nothing'] satisfies DestinationWord[];
const sourceWords: readonly string[] = ['undecided', 'killed', 'undone', 'unknown'] satisfies SourceWord[];

export function destinationWordFromWire(word: string, host: string): DestinationWord {
  if (!destinationWords.includes(word)) throw badAnswer(host, `the outcome "${word}"`);
  return word as DestinationWord;
}

export function sourceWordFromWire(word: string, host: string): SourceWord {
  if (!sourceWords.includes(word)) throw badAnswer(host, `the outcome "${word}"`);
  return word as SourceWord;
}

const eventKinds: readonly string[] = [
  'started',
  'finding',
  'phase',
  'remark',
  'done',
  'failed',
] satisfies MigrationEvent['kind'][];

/** An event from the agent that the operator commands; null for a kind of a later version, which is skipped. */
export function eventFromWire(sent: { readonly event: string }): MigrationEvent | null {
  const event = JSON.parse(sent.event) as MigrationEvent;
  return eventKinds.includes(event.kind) ? event : null;
}

function badAnswer(host: string, what: string): PhaulError {
  return new PhaulError({
    code: 'bad-message',
    what: `${host} answered with ${what}`,
    remedy: 'use the same version of phaul on both hosts',
  });
}
