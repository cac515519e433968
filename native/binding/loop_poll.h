// Readiness of a descriptor on Node's event loop (uv_poll_t), without a thread.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <functional>
#include <memory>

#include "core/outcome.h"

namespace phaul::binding {

class LoopPoll;

struct CloseLoopPoll {
  void operator()(LoopPoll* poll) const;
};

// Dropped: no callback follows, the loop has let go of the descriptor, which may be closed at once.
using OwnedLoopPoll = std::unique_ptr<LoopPoll, CloseLoopPoll>;

class LoopPoll {
 public:
  // `events`: UV_READABLE, UV_WRITABLE (level-triggered).
  // After `failed` nothing is polled until `watch` is called: libuv stops at POLLERR.
  // At `ending` the environment goes down: drop the poll, call no JavaScript.
  struct Observer {
    std::function<void(int events)> ready;
    std::function<void()> failed;
    std::function<void()> ending;
  };

  // The observer lives until the loop has closed the handle, so it may drop the poll from within.
  static Outcome<OwnedLoopPoll> on(napi_env env, int fd, int events, Observer observer);

  void watch(int events);

 private:
  friend struct CloseLoopPoll;
  explicit LoopPoll(Observer observer) : observer_(std::move(observer)) { handle_.data = this; }

  void close();
  static void onEvent(uv_poll_t* handle, int status, int events);
  static void onClosed(uv_handle_t* handle);

  uv_poll_t handle_ = {};
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  Observer observer_;
};

}  // namespace phaul::binding
