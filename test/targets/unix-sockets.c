/*
 * Purpose: unix sockets: pairs of all three types with data in flight, a descriptor in flight, listeners by path and by
 * abstract name that still accept, datagram sockets by name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"

static int stream[2], packet[2], datagram[2], carrier[2], path_listener, abstract_listener, inbox, sender, connected[2];

static socklen_t name_of(struct sockaddr_un *name, const char *text, bool abstract) {
  memset(name, 0, sizeof *name);
  name->sun_family = AF_UNIX;
  snprintf(name->sun_path + (abstract ? 1 : 0), sizeof name->sun_path - 1, "%s", text);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(text) + 1);
}

static int bound(int type, const char *text, bool abstract) {
  struct sockaddr_un name;
  socklen_t length = name_of(&name, text, abstract);
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  if (!abstract) unlink(text);
  if (fd < 0 || bind(fd, (struct sockaddr *)&name, length) != 0) target_die("bind %s", text);
  if (type == SOCK_STREAM && listen(fd, 16) != 0) target_die("listen %s", text);
  return fd;
}

static void connect_and_talk(int listener, const char *text, bool abstract) {
  struct sockaddr_un name;
  socklen_t length = name_of(&name, text, abstract);
  char byte = 0;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr *)&name, length) != 0) target_bad("connect %s: %s", text, strerror(errno));
  int other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (other < 0 || write(fd, "k", 1) != 1 || read(other, &byte, 1) != 1 || byte != 'k') target_bad("talk over %s", text);
  close(fd);
  close(other);
}

static void send_descriptor(void) {
  int file = memfd_create("in-flight", MFD_CLOEXEC);
  target_write_all(file, "carried", 7);
  char byte = 'd', space[CMSG_SPACE(sizeof file)] = {0};
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  struct cmsghdr *control = CMSG_FIRSTHDR(&message);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof file);
  memcpy(CMSG_DATA(control), &file, sizeof file);
  if (sendmsg(carrier[0], &message, 0) != 1) target_die("send a descriptor");
  close(file);
}

static void check_descriptor(void) {
  char byte = 0, text[8] = {0}, space[CMSG_SPACE(sizeof(int))];
  int file = -1;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  if (recvmsg(carrier[1], &message, MSG_DONTWAIT) != 1 || byte != 'd') target_bad("message with a descriptor");
  struct cmsghdr *control = CMSG_FIRSTHDR(&message);
  if (control == NULL || control->cmsg_type != SCM_RIGHTS) target_bad("the descriptor in flight is gone");
  memcpy(&file, CMSG_DATA(control), sizeof file);
  if (pread(file, text, 7, 0) != 7 || strcmp(text, "carried") != 0) target_bad("the descriptor in flight is another file");
  close(file);
}

static void send_all(void) {
  target_write_all(stream[0], "to the right", 12);
  target_write_all(stream[1], "to the left!", 12);
  for (int i = 0; i < 3; i++) {
    char message[4] = {'m', (char)('0' + i), 'x', 'y'};
    if (send(packet[0], message, (size_t)i + 2, 0) < 0 || send(datagram[0], message, (size_t)i + 2, 0) < 0 ||
        send(sender, message, (size_t)i + 2, 0) < 0)
      target_die("send");
  }
  target_write_all(connected[0], "connected", 9);
  send_descriptor();
}

static void check_stream(int fd, const char *expected) {
  char text[64] = {0};
  ssize_t got = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
  if (got != (ssize_t)strlen(expected) || strcmp(text, expected) != 0) target_bad("stream: `%s` for `%s`", text, expected);
}

static void check_messages(int fd, const char *what) {
  for (int i = 0; i < 3; i++) {
    char message[16];
    ssize_t got = recv(fd, message, sizeof message, MSG_DONTWAIT);
    if (got != i + 2 || message[0] != 'm' || message[1] != '0' + i) target_bad("%s: message %d has %zd bytes", what, i, got);
  }
  char more;
  if (recv(fd, &more, 1, MSG_DONTWAIT) >= 0) target_bad("%s: one message too many", what);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "unix sockets with data and a descriptor in flight, listeners", NULL);
  char abstract[64];
  snprintf(abstract, sizeof abstract, "phaul-target-%d-%lx", (int)getpid(), (unsigned long)target_mix(target_now()));
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) != 0 ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packet) != 0 ||
      socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, carrier) != 0)
    target_die("socketpair");
  path_listener = bound(SOCK_STREAM, "listener.sock", false);
  abstract_listener = bound(SOCK_STREAM, abstract, true);
  inbox = bound(SOCK_DGRAM, "inbox.sock", false);
  struct sockaddr_un name;
  socklen_t length = name_of(&name, "inbox.sock", false);
  sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (connect(sender, (struct sockaddr *)&name, length) != 0) target_die("connect inbox");
  length = name_of(&name, "listener.sock", false);
  connected[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(connected[0], (struct sockaddr *)&name, length) != 0) target_die("connect listener");
  connected[1] = accept4(path_listener, NULL, NULL, SOCK_CLOEXEC);
  int size = 0;
  socklen_t size_length = sizeof size;
  getsockopt(stream[0], SOL_SOCKET, SO_SNDBUF, &size, &size_length);
  send_all();
  target_ready();

  while (target_wait()) {
    int now = 0;
    getsockopt(stream[0], SOL_SOCKET, SO_SNDBUF, &now, &size_length);
    if (now != size) target_bad("send buffer is %d, was %d", now, size);
    check_stream(stream[1], "to the right");
    check_stream(stream[0], "to the left!");
    check_stream(connected[1], "connected");
    check_messages(packet[1], "seqpacket pair");
    check_messages(datagram[1], "datagram pair");
    check_messages(inbox, "datagrams by name");
    check_descriptor();
    connect_and_talk(path_listener, "listener.sock", false);
    connect_and_talk(abstract_listener, abstract, true);
    send_all();
    target_ok("sockets=13 listeners=2");
  }
  return 0;
}
