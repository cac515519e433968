/*
 * Purpose: private memory of every kind: anonymous, file copy-on-write, protections, PROT_NONE with content behind it,
 * discarded pages, brk, a grown stack, locked, advice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

enum { PAGES = 256 };

static const uint64_t seed = 0x70726976;
static char *anonymous, *copied, *forbidden, *readable, *executable, *discarded, *heap, *locked, *advised;
static sigjmp_buf back;
static uint64_t generation;

static void on_fault(int number) {
  (void)number;
  siglongjmp(back, 1);
}

static bool faults(volatile char *address, bool writing) {
  if (sigsetjmp(back, 1) != 0) return true;
  if (writing) *address = 1;
  else (void)*address;
  return false;
}

static char *map(size_t pages, int protection, int flags, int fd) {
  char *memory = mmap(NULL, pages * TARGET_PAGE, protection, MAP_PRIVATE | flags, fd, 0);
  if (memory == MAP_FAILED) target_die("mmap");
  return memory;
}

static void fill(char *memory, size_t pages, uint64_t space, uint64_t now) {
  for (size_t i = 0; i < pages; i++) target_page_fill(memory + i * TARGET_PAGE, seed + space, i, now);
}

static void check(const char *memory, size_t pages, uint64_t space, uint64_t now, const char *what) {
  for (size_t i = 0; i < pages; i++)
    if (!target_page_check(memory + i * TARGET_PAGE, seed + space, i, now)) target_bad("%s: page %zu", what, i);
}

static void check_file_copy(void) {
  /* Even pages were written, odd ones are the file's. */
  for (size_t i = 0; i < 16; i++)
    if (!target_page_check(copied + i * TARGET_PAGE, seed + (i % 2 == 0 ? 2 : 1), i, 0)) target_bad("file copy: page %zu", i);
  char page[TARGET_PAGE];
  int fd = open("copied", O_RDONLY | O_CLOEXEC);
  for (size_t i = 0; i < 16; i++)
    if (pread(fd, page, sizeof page, (off_t)(i * TARGET_PAGE)) != TARGET_PAGE || !target_page_check(page, seed + 1, i, 0))
      target_bad("the file under a private mapping changed at page %zu", i);
  close(fd);
}

static void check_discarded(void) {
  for (size_t i = 0; i < 16 * TARGET_PAGE; i++)
    if (i / TARGET_PAGE % 2 == 1 && discarded[i] != 0) target_bad("discarded page %zu is not zero", i / TARGET_PAGE);
  for (size_t i = 0; i < 16; i += 2)
    if (!target_page_check(discarded + i * TARGET_PAGE, seed + 5, i, 0)) target_bad("page %zu beside a discarded one", i);
}

/* Deeper than what is on the stack now: it must still grow. */
static uint64_t __attribute__((noinline)) grow_stack(unsigned depth) {
  volatile char frame[4096];
  memset((char *)frame, (int)depth, sizeof frame);
  uint64_t below = depth == 0 ? 0 : grow_stack(depth - 1);
  return below + (unsigned char)frame[depth % sizeof frame];
}

static void check_protections(void) {
  if (!faults(forbidden, false)) target_bad("PROT_NONE memory can be read");
  if (mprotect(forbidden, 8 * TARGET_PAGE, PROT_READ) != 0) target_bad("mprotect: %s", strerror(errno));
  check(forbidden, 8, 3, 0, "content behind PROT_NONE");
  mprotect(forbidden, 8 * TARGET_PAGE, PROT_NONE);
  if (!faults(readable, true)) target_bad("PROT_READ memory can be written");
  check(readable, 8, 4, 0, "read-only memory");
#ifdef __x86_64__
  if (((int (*)(void))(void *)executable)() != 42) target_bad("code in executable memory");
#endif
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  anonymous = map(PAGES, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  fill(anonymous, PAGES, 0, generation);
  int fd = open("copied", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  char page[TARGET_PAGE];
  for (size_t i = 0; i < 16; i++) {
    target_page_fill(page, seed + 1, i, 0);
    target_write_all(fd, page, sizeof page);
  }
  copied = map(16, PROT_READ | PROT_WRITE, 0, fd);
  close(fd);
  for (size_t i = 0; i < 16; i += 2) target_page_fill(copied + i * TARGET_PAGE, seed + 2, i, 0);
  forbidden = map(8, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  fill(forbidden, 8, 3, 0);
  readable = map(8, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  fill(readable, 8, 4, 0);
  discarded = map(16, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  fill(discarded, 16, 5, 0);
  for (size_t i = 1; i < 16; i += 2) madvise(discarded + i * TARGET_PAGE, TARGET_PAGE, MADV_DONTNEED);
  executable = map(1, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  memcpy(executable, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov eax, 42; ret */
  if (mprotect(forbidden, 8 * TARGET_PAGE, PROT_NONE) != 0 || mprotect(readable, 8 * TARGET_PAGE, PROT_READ) != 0 ||
      mprotect(executable, TARGET_PAGE, PROT_READ | PROT_EXEC) != 0)
    target_die("mprotect");
  heap = sbrk(64 * TARGET_PAGE);
  if (heap == (void *)-1) target_die("sbrk");
  heap = (char *)(((uintptr_t)heap + TARGET_PAGE - 1) & ~(uintptr_t)(TARGET_PAGE - 1));
  fill(heap, 32, 6, 0);
  locked = map(4, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
  fill(locked, 4, 7, 0);
  if (mlock(locked, 4 * TARGET_PAGE) != 0) target_die("mlock");
  advised = map(512, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NORESERVE, -1);
  madvise(advised, 512 * TARGET_PAGE, MADV_DONTDUMP);
  madvise(advised, 512 * TARGET_PAGE, MADV_HUGEPAGE); /* EINVAL on a kernel without: nothing to keep */
  fill(advised, 8, 8, 0);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "private memory of every kind", NULL);
  set_up();
  target_ready();
  while (target_wait()) {
    check(anonymous, PAGES, 0, generation, "anonymous memory");
    fill(anonymous, PAGES, 0, ++generation);
    check_file_copy();
    check_protections();
    check_discarded();
    check(heap, 32, 6, 0, "brk");
    check(locked, 4, 7, 0, "locked memory");
    check(advised, 8, 8, 0, "advised memory");
    char kb[64];
    if (!target_status_line(0, "VmLck", kb, sizeof kb) || atoi(kb) < 16) target_bad("locked memory: VmLck is %s", kb);
    if (grow_stack(400) == 0) target_bad("stack");
    target_ok("pages=%d generation=%lu", PAGES + 84, (unsigned long)generation);
  }
  return 0;
}
