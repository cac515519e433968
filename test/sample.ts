/**
 * How much is tried: a fixed, seeded sample by default, the full counts with PHAUL_SOAK=1. PHAUL_SEED chooses another
 * sample; every failure can be repeated by the seed that the run prints first.
 */
export const seed = Number.parseInt(process.env.PHAUL_SEED ?? '20261124', 10);
export const soak = process.env.PHAUL_SOAK === '1';

/** `sample` in an ordinary run, `full` in a soak. */
export function count(sample: number, full: number): number {
  return soak ? full : sample;
}
