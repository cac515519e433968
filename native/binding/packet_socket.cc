// packetSocket
#include <deque>
#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "binding/callback.h"
#include "binding/failure.h"
#include "binding/loop_poll.h"
#include "binding/registry.h"
#include "core/seqpacket.h"

namespace phaul::binding {
namespace {

class PacketSocket {
 public:
  static Done open(const std::shared_ptr<PacketSocket>& socket, int fd) {
    const auto observer = LoopPoll::Observer{.ready = [socket](int events) { socket->onReady(events); },
                                             .failed = [socket] { socket->onPollError(); },
                                             .ending = [socket] { socket->close(); }};
    auto poll = LoopPoll::on(socket->env_, fd, UV_READABLE, observer);
    if (!poll) return poll.failure();
    socket->poll_ = std::move(*poll);
    socket->fd_.reset(fd);
    return Nothing{};
  }

  PacketSocket(Napi::Env env, Napi::Object events) : env_(env), events_(Napi::Persistent(events)) {}

  Done send(std::span<const std::uint8_t> data) {
    if (!fd_) return Failure{EBADF, "send"};
    if (backlog_.empty()) {
      auto sent = sendMessage(fd_.get(), data);
      if (!sent) return sent.failure();
      if (*sent == Sent::whole) return Nothing{};
    }
    backlog_.emplace_back(data.begin(), data.end());
    watch();
    return Nothing{};
  }

  void close() {
    poll_.reset();
    fd_.reset();
    events_.Reset();
    backlog_.clear();
  }

 private:
  void onReady(int events) {
    const Napi::HandleScope scope(env_);
    if ((events & UV_WRITABLE) != 0) flush();
    if ((events & UV_READABLE) != 0) readAll();
  }

  // POLLERR: the peer went without reading all of our messages; its own may still wait here, and then the end.
  void onPollError() {
    const Napi::HandleScope scope(env_);
    backlog_.clear();
    readAll();
    if (fd_) watch();
  }

  void readAll() {
    while (fd_) {
      const Napi::HandleScope scope(env_);
      auto received = receiveMessage(fd_.get());
      if (!received) return fail(received.failure());
      if (std::holds_alternative<NothingYet>(*received)) return;
      if (std::holds_alternative<PeerGone>(*received)) return tellAndClose("end", {});
      deliver(std::get<Message>(*received));
    }
  }

  void deliver(Message& message) {
    Napi::Array fds = Napi::Array::New(env_, message.fds.size());
    for (std::uint32_t i = 0; i < message.fds.size(); ++i) fds[i] = Napi::Number::New(env_, message.fds[i].release());
    const auto data = Napi::Buffer<std::uint8_t>::Copy(env_, message.data.data(), message.data.size());
    callMethod(events_.Value(), "packet", {data, fds});
  }

  void flush() {
    while (!backlog_.empty()) {
      auto sent = sendMessage(fd_.get(), backlog_.front());
      if (!sent) {
        backlog_.clear();
        watch();
        // The peer is gone: what it sent before is still to be read, and then the end is told.
        if (sent.failure().error == EPIPE || sent.failure().error == ECONNRESET) return;
        return fail(sent.failure());
      }
      if (*sent == Sent::would_block) return;
      backlog_.pop_front();
    }
    watch();
  }

  void watch() { poll_->watch(backlog_.empty() ? UV_READABLE : UV_READABLE | UV_WRITABLE); }

  void fail(const Failure& failure) { tellAndClose("error", {errorOf(env_, failure)}); }

  void tellAndClose(const char* event, const std::initializer_list<napi_value>& values) {
    const Napi::Object events = events_.Value();
    close();
    callMethod(events, event, values);
  }

  Napi::Env env_;
  Napi::ObjectReference events_;
  UniqueFd fd_;
  OwnedLoopPoll poll_;
  std::deque<std::vector<std::uint8_t>> backlog_;
};

Napi::Value packetSocket(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const int fd = arguments.integer(0);
  const Napi::Object events = arguments.object(1);
  if (arguments.refused()) return env.Undefined();

  auto socket = std::make_shared<PacketSocket>(env, events);
  const Done opened = PacketSocket::open(socket, fd);
  if (!opened) {
    socket->close();
    return throwFailure(env, opened.failure());
  }
  Napi::Object result = Napi::Object::New(env);
  define(result, "send", [socket](const Napi::CallbackInfo& call) -> Napi::Value {
    Arguments parts(call);
    const auto data = parts.bytes(0);
    if (parts.refused()) return call.Env().Undefined();
    const Done sent = socket->send(data);
    if (!sent) return throwFailure(call.Env(), sent.failure());
    return call.Env().Undefined();
  });
  define(result, "close", [socket](const Napi::CallbackInfo&) { socket->close(); });
  return result;
}

}  // namespace

void registerPacketSocket(Napi::Object exports) { define(exports, "packetSocket", packetSocket); }

}  // namespace phaul::binding
