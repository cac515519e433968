/*
 * Purpose: a TCP server (IPv4 and IPv6) whose connections and memory can be proved unharmed by a move.
 *
 * It keeps --mib MiB of pseudo-random pages, rewrites --dirty-rate of them a second, and knows for each connection
 * which request must come next. SIGUSR1: verify all pages, write the report. Idle, it sleeps.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

enum { MAX_BINDS = 8, MAX_WORKERS = 64, OUT_FRAMES = 64, CHUNK_PAGES = 64 };

struct connection {
  int fd;
  bool closed;         /* the worker is done with it; freed when no verifier refers to it */
  unsigned references; /* the worker, and each verify in flight */
  pthread_mutex_t lock; /* guards everything below: a verifier answers from its own thread */
  uint64_t id;
  uint64_t next;
  uint64_t chain;
  size_t in_length;
  struct request in;
  size_t out_length;
  char out[OUT_FRAMES * sizeof(struct reply)];
};

struct verify_job {
  struct connection *connection;
  struct reply reply;
};

static long port = 7000;
static long mib = 4;
static long dirty_rate;
static long workers = 1;
static bool name_at_each_answer;
static const char *binds[MAX_BINDS];
static unsigned bind_count;

static char start_name[32];
static char *pages;
static uint32_t *generations;
static size_t page_count;
static uint64_t seed;
static pthread_mutex_t chunk_locks[1024];
static int worker_epolls[MAX_WORKERS];
static atomic_ulong requests_answered;
static atomic_ulong violations;
static atomic_uint clients;

static void parse_port(const char *value) { port = target_number(value, 1, 65535); }
static void parse_mib(const char *value) { mib = target_number(value, 0, 65536); }
static void parse_dirty_rate(const char *value) { dirty_rate = target_number(value, 0, 10000000); }
static void parse_threads(const char *value) { workers = target_number(value, 1, MAX_WORKERS); }
static void parse_name(const char *value) {
  (void)value;
  name_at_each_answer = true;
}
static void parse_bind(const char *value) {
  if (bind_count == MAX_BINDS) target_usage("at most %d --bind", MAX_BINDS);
  binds[bind_count++] = value;
}

static const struct target_option options[] = {
  {"port", "N", "TCP port (default 7000)", parse_port},
  {"bind", "IP", "listen on this address only; repeatable (default: all, IPv4 and IPv6)", parse_bind},
  {"mib", "N", "pseudo-random memory to keep, MiB (default 4)", parse_mib},
  {"dirty-rate", "N", "pages to rewrite a second (default 0)", parse_dirty_rate},
  {"threads", "N", "threads that serve connections (default 1)", parse_threads},
  {"name-from-hostname", NULL, "answer with gethostname() as read at each answer (default: as read at the start)",
   parse_name},
  {NULL, NULL, NULL, NULL},
};

static pthread_mutex_t *lock_of_page(size_t index) { return &chunk_locks[(index / CHUNK_PAGES) % 1024]; }

static void make_pages(void) {
  page_count = (size_t)mib * (1024 * 1024 / TARGET_PAGE);
  seed = target_mix(target_now() ^ (uint64_t)getpid());
  for (int i = 0; i < 1024; i++) pthread_mutex_init(&chunk_locks[i], NULL);
  if (page_count == 0) return;
  pages = mmap(NULL, page_count * TARGET_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  generations = calloc(page_count, sizeof *generations);
  if (pages == MAP_FAILED || generations == NULL) target_die("%ld MiB", mib);
  for (size_t i = 0; i < page_count; i++) target_page_fill(pages + i * TARGET_PAGE, seed, i, 0);
}

static uint64_t count_bad_pages(void) {
  uint64_t bad = 0;
  for (size_t i = 0; i < page_count; i++) {
    pthread_mutex_lock(lock_of_page(i));
    if (!target_page_check(pages + i * TARGET_PAGE, seed, i, generations[i])) bad++;
    pthread_mutex_unlock(lock_of_page(i));
  }
  return bad;
}

/* Rewrites pages in steps of 10 ms: even at high rates it sleeps between them. */
static void *keep_dirtying(void *unused) {
  (void)unused;
  uint64_t random = seed;
  double owed = 0;
  uint64_t last = target_now();
  for (;;) {
    struct timespec pause = {0, 10 * 1000 * 1000};
    nanosleep(&pause, NULL);
    uint64_t now = target_now();
    owed += (double)dirty_rate * (double)(now - last) / 1e9;
    if (owed > (double)dirty_rate / 10) owed = (double)dirty_rate / 10; /* a frozen time is not made up for */
    last = now;
    for (; owed >= 1; owed--) {
      random = target_mix(random);
      size_t index = random % page_count;
      pthread_mutex_lock(lock_of_page(index));
      generations[index]++;
      target_page_fill(pages + index * TARGET_PAGE, seed, index, generations[index]);
      pthread_mutex_unlock(lock_of_page(index));
    }
  }
  return NULL;
}

/* Caller holds the connection's lock. Frees it with the last reference. */
static void release(struct connection *connection) {
  unsigned left = --connection->references;
  pthread_mutex_unlock(&connection->lock);
  if (left > 0) return;
  pthread_mutex_destroy(&connection->lock);
  free(connection);
}

/* Caller holds the lock. False: the peer is gone. What does not fit now is sent on EPOLLOUT. */
static bool flush(struct connection *connection) {
  while (connection->out_length > 0) {
    ssize_t sent = send(connection->fd, connection->out, connection->out_length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    connection->out_length -= (size_t)sent;
    memmove(connection->out, connection->out + sent, connection->out_length);
  }
  return true;
}

/* Caller holds the lock. */
static bool answer(struct connection *connection, struct reply *reply) {
  if (connection->closed) return false;
  if (name_at_each_answer)
    gethostname(reply->host, sizeof reply->host - 1);
  else
    memcpy(reply->host, start_name, sizeof reply->host);
  reply->clients = atomic_load(&clients);
  if (connection->out_length + sizeof *reply > sizeof connection->out) return false;
  memcpy(connection->out + connection->out_length, reply, sizeof *reply);
  connection->out_length += sizeof *reply;
  atomic_fetch_add(&requests_answered, 1);
  return flush(connection);
}

static void *verify_and_answer(void *argument) {
  struct verify_job *job = argument;
  job->reply.value = count_bad_pages();
  job->reply.extra = page_count;
  pthread_mutex_lock(&job->connection->lock);
  answer(job->connection, &job->reply); /* a lost peer is noticed by the worker */
  release(job->connection);
  free(job);
  return NULL;
}

static void start_verify(struct connection *connection, const struct reply *reply) {
  struct verify_job *job = malloc(sizeof *job);
  pthread_t thread;
  pthread_attr_t attributes;
  if (job == NULL) target_die("verify");
  *job = (struct verify_job){connection, *reply};
  connection->references++;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (pthread_create(&thread, &attributes, verify_and_answer, job) != 0) target_die("verify thread");
  pthread_attr_destroy(&attributes);
}

/* Caller holds the lock. */
static bool handle(struct connection *connection) {
  const struct request *request = &connection->in;
  struct reply reply = {.magic = PROTOCOL_MAGIC, .op = request->op, .connection = request->connection,
                        .sequence = request->sequence};
  if (request->magic != PROTOCOL_MAGIC || request->check != request_check(request)) reply.status |= STATUS_BAD_FRAME;
  if (connection->next == 0) {
    connection->id = request->connection;
    connection->next = 1;
  }
  if (request->connection != connection->id) reply.status |= STATUS_BAD_FRAME;
  if (request->sequence > connection->next) reply.status |= STATUS_LOST;
  if (request->sequence < connection->next) reply.status |= STATUS_REPEATED;
  if (reply.status != 0) atomic_fetch_add(&violations, 1);
  connection->next = request->sequence + 1;
  connection->chain = chain_next(connection->chain, request);
  reply.check = connection->chain;

  switch (request->op) {
    case OP_VERIFY:
      start_verify(connection, &reply);
      return true;
    case OP_STATS:
      reply.value = atomic_load(&requests_answered);
      reply.extra = atomic_load(&violations);
      return answer(connection, &reply);
    default:
      return answer(connection, &reply);
  }
}

static bool serve(struct connection *connection) {
  pthread_mutex_lock(&connection->lock);
  bool alive = flush(connection);
  while (alive) {
    /* One frame of room must be left: a client that does not read is not read from either. */
    if (connection->out_length + 2 * sizeof(struct reply) > sizeof connection->out) break;
    ssize_t got = recv(connection->fd, (char *)&connection->in + connection->in_length,
                       sizeof connection->in - connection->in_length, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) {
      alive = false;
      break;
    }
    connection->in_length += (size_t)got;
    if (connection->in_length < sizeof connection->in) continue;
    connection->in_length = 0;
    alive = handle(connection);
  }
  pthread_mutex_unlock(&connection->lock);
  return alive;
}

static void drop(struct connection *connection) {
  pthread_mutex_lock(&connection->lock);
  close(connection->fd);
  connection->closed = true;
  atomic_fetch_sub(&clients, 1);
  release(connection);
}

static void *work(void *argument) {
  int epoll = *(int *)argument;
  struct epoll_event events[64];
  for (;;) {
    int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      struct connection *connection = events[i].data.ptr;
      if (!serve(connection)) drop(connection);
    }
  }
  return NULL;
}

static void accept_all(int listener) {
  static unsigned turn;
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) target_die("connection");
    connection->fd = fd;
    connection->references = 1;
    pthread_mutex_init(&connection->lock, NULL);
    atomic_fetch_add(&clients, 1);
    /* Edge-triggered, both directions at once: no epoll_ctl per request. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(worker_epolls[turn++ % (unsigned)workers], EPOLL_CTL_ADD, fd, &event) != 0) target_die("epoll_ctl");
  }
}

static int listen_on(const char *address) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  bool is_four = address != NULL && inet_pton(AF_INET, address, &four.sin_addr) == 1;
  if (address != NULL && !is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1)
    target_usage("%s is not an IP address", address);
  int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int on = 1, both = address == NULL ? 0 : 1;
  if (fd < 0) target_die("socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!is_four) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both);
  int failed = is_four ? bind(fd, (struct sockaddr *)&four, sizeof four) : bind(fd, (struct sockaddr *)&six, sizeof six);
  if (failed != 0 || listen(fd, 512) != 0) target_die("listen on %s port %ld", address == NULL ? "all" : address, port);
  return fd;
}

static bool report(void) {
  char text[256];
  uint64_t bad = count_bad_pages();
  unsigned long violated = atomic_load(&violations);
  snprintf(text, sizeof text, "pages=%zu bad_pages=%lu requests=%lu violations=%lu clients=%u", page_count,
           (unsigned long)bad, atomic_load(&requests_answered), violated, atomic_load(&clients));
  target_report(bad == 0 && violated == 0, text);
  return bad == 0 && violated == 0;
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "TCP server whose connections and memory can be proved unharmed", options);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  gethostname(start_name, sizeof start_name - 1);
  make_pages();

  int acceptor = epoll_create1(EPOLL_CLOEXEC);
  sigset_t orders;
  sigemptyset(&orders);
  sigaddset(&orders, SIGUSR1);
  sigaddset(&orders, SIGTERM);
  int signals = signalfd(-1, &orders, SFD_CLOEXEC | SFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = signals};
  if (acceptor < 0 || signals < 0 || epoll_ctl(acceptor, EPOLL_CTL_ADD, signals, &event) != 0) target_die("epoll");
  for (unsigned i = 0; i < (bind_count == 0 ? 1 : bind_count); i++) {
    event.data.fd = listen_on(bind_count == 0 ? NULL : binds[i]);
    epoll_ctl(acceptor, EPOLL_CTL_ADD, event.data.fd, &event);
  }
  pthread_t thread;
  for (long i = 0; i < workers; i++) {
    worker_epolls[i] = epoll_create1(EPOLL_CLOEXEC);
    if (pthread_create(&thread, NULL, work, &worker_epolls[i]) != 0) target_die("worker");
  }
  if (dirty_rate > 0 && page_count > 0 && pthread_create(&thread, NULL, keep_dirtying, NULL) != 0)
    target_die("dirtier");
  target_ready();

  for (;;) {
    struct epoll_event ready[8];
    int count = epoll_wait(acceptor, ready, 8, -1);
    for (int i = 0; i < count; i++) {
      if (ready[i].data.fd != signals) {
        accept_all(ready[i].data.fd);
        continue;
      }
      struct signalfd_siginfo order;
      while (read(signals, &order, sizeof order) == sizeof order) {
        if (order.ssi_signo == SIGTERM) return report() ? 0 : 1;
        report();
      }
    }
  }
}
