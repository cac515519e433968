#include "binding/loop_poll.h"

namespace phaul::binding {

void CloseLoopPoll::operator()(LoopPoll* poll) const { poll->close(); }

Outcome<OwnedLoopPoll> LoopPoll::on(napi_env env, int fd, int events, Observer observer) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return Failure{ENOTSUP, "napi_get_uv_event_loop"};
  auto poll = std::unique_ptr<LoopPoll>(new LoopPoll(std::move(observer)));
  const int refused = uv_poll_init(loop, &poll->handle_, fd);
  if (refused != 0) return Failure{-refused, "uv_poll_init"};
  OwnedLoopPoll owned(poll.release());
  // Without it a worker's loop would go down with a handle in it, which libuv answers by abort().
  const napi_status hooked = napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* data) {
        // A copy: the observer drops the poll, and with it itself.
        const auto ending = static_cast<LoopPoll*>(data)->observer_.ending;
        ending();
      },
      owned.get(), &owned->cleanup_);
  if (hooked != napi_ok) return Failure{ENOMEM, "napi_add_async_cleanup_hook"};
  owned->watch(events);
  return owned;
}

void LoopPoll::watch(int events) {
  // Fails only for a closing handle, which nobody holds.
  uv_poll_start(&handle_, events, onEvent);
}

void LoopPoll::close() { uv_close(reinterpret_cast<uv_handle_t*>(&handle_), onClosed); }

void LoopPoll::onEvent(uv_poll_t* handle, int status, int events) {
  const auto* self = static_cast<LoopPoll*>(handle->data);
  if (status < 0) {
    self->observer_.failed();
  } else {
    self->observer_.ready(events);
  }
}

void LoopPoll::onClosed(uv_handle_t* handle) {
  const std::unique_ptr<LoopPoll> self(static_cast<LoopPoll*>(handle->data));
  if (self->cleanup_ != nullptr) napi_remove_async_cleanup_hook(self->cleanup_);
}

}  // namespace phaul::binding
