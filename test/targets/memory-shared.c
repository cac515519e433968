/*
 * Purpose: shared memory stays shared and whole: anonymous, memfd (sealed), a file, a /dev/shm file (unlinked); a child
 * writes, the parent reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

enum { PAGES = 64, KINDS = 5 };

static const char *const names[KINDS] = {"anonymous", "memfd", "file", "/dev/shm", "unlinked file"};
static const uint64_t seed = 0x73686172;
static char *memory[KINDS];
static int memfd;
static uint64_t child_generation;

/* Writes the next generation into all of them, at every question. */
static int writer(int socket) {
  char question;
  while (target_read_all(socket, &question, 1)) {
    child_generation++;
    for (int kind = 0; kind < KINDS; kind++)
      for (size_t i = 0; i < PAGES; i++)
        target_page_fill(memory[kind] + i * TARGET_PAGE, seed + (uint64_t)kind, i, child_generation);
    target_write_all(socket, "y", 1);
  }
  return 0;
}

static void map(int kind, int fd) {
  if (fd >= 0 && ftruncate(fd, PAGES * TARGET_PAGE) != 0) target_die("size of %s", names[kind]);
  memory[kind] = mmap(NULL, PAGES * TARGET_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  if (memory[kind] == MAP_FAILED) target_die("map %s", names[kind]);
}

static void check(uint64_t generation) {
  for (int kind = 0; kind < KINDS; kind++)
    for (size_t i = 0; i < PAGES; i++)
      if (!target_page_check(memory[kind] + i * TARGET_PAGE, seed + (uint64_t)kind, i, generation))
        target_bad("%s: page %zu is not of generation %lu", names[kind], i, (unsigned long)generation);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "shared memory of every kind", NULL);
  int child_pid;
  char name[64];
  uint64_t generation = 1;
  memfd = memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int file = open("shared", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int unlinked = open("shared-unlinked", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  snprintf(name, sizeof name, "/phaul-target-%lx", (unsigned long)target_mix(target_now() ^ (uint64_t)getpid()));
  int shm = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (memfd < 0 || file < 0 || unlinked < 0 || shm < 0) target_die("shared files");
  map(0, -1);
  map(1, memfd);
  map(2, file);
  map(3, shm);
  map(4, unlinked);
  shm_unlink(name);
  unlink("shared-unlinked");
  close(shm);
  close(unlinked);
  if (fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) target_die("seals");
  int to_writer = target_child(writer, &child_pid);
  if (target_ask_child(to_writer, '?') != 'y') target_die("writer");
  check(generation);
  target_ready();

  while (target_wait()) {
    check(generation);
    if (target_ask_child(to_writer, '?') != 'y') target_bad("the writer does not answer");
    check(++generation);
    int seals = fcntl(memfd, F_GET_SEALS);
    if (seals != (F_SEAL_SHRINK | F_SEAL_GROW)) target_bad("memfd: seals %x", seals);
    char page[TARGET_PAGE];
    if (pread(memfd, page, sizeof page, 0) != TARGET_PAGE || !target_page_check(page, seed + 1, 0, generation))
      target_bad("the memfd's descriptor and its mapping are two files");
    target_ok("kinds=%d generation=%lu", KINDS, (unsigned long)generation);
  }
  return 0;
}
