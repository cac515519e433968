/*
 * Memory that verifies itself, for test/integration/pages-criu.test.ts: argv[1] MiB of private pages of which every
 * fourth is left untouched, and 4 MiB shared with a child. SIGUSR1: writes "ok PAGES" or "bad PAGE" to argv[2].
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, SHARED_PAGES = 1024 };

static void words(uint64_t *page, uint64_t number) {
  uint64_t state = (number + 1) * 0x9e3779b97f4a7c15u;
  for (int i = 0; i < PAGE / 8; i++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    page[i] = state;
  }
}

static int untouched(uint64_t number) { return number % 4 == 3; }

static int whole(const char *memory, uint64_t pages, uint64_t seed, uint64_t *bad) {
  static uint64_t expected[PAGE / 8];
  for (uint64_t i = 0; i < pages; i++) {
    if (untouched(i)) memset(expected, 0, PAGE);
    else words(expected, seed + i);
    if (memcmp(memory + i * PAGE, expected, PAGE) != 0) {
      *bad = i;
      return 0;
    }
  }
  return 1;
}

static char *map(uint64_t pages, int flags, uint64_t seed) {
  char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  if (memory == MAP_FAILED) exit(2);
  for (uint64_t i = 0; i < pages; i++)
    if (!untouched(i)) words((uint64_t *)(memory + i * PAGE), seed + i);
  return memory;
}

int main(int argc, char **argv) {
  if (argc != 3) return 64;
  uint64_t pages = strtoull(argv[1], NULL, 10) * 256;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  char *own = map(pages, MAP_PRIVATE, 0);
  char *shared = map(SHARED_PAGES, MAP_SHARED, 1u << 30);
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  for (int signal;;) {
    char next[4096];
    snprintf(next, sizeof next, "%s.new", argv[2]);
    FILE *report = fopen(next, "w");
    uint64_t bad = 0;
    if (!whole(own, pages, 0, &bad)) fprintf(report, "bad private %lu\n", bad);
    else if (!whole(shared, SHARED_PAGES, 1u << 30, &bad)) fprintf(report, "bad shared %lu\n", bad);
    else fprintf(report, "ok %lu\n", pages + SHARED_PAGES);
    fclose(report);
    rename(next, argv[2]);
    sigwait(&set, &signal);
  }
}
