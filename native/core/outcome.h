// A value or the errno of the system call that failed. The core throws nothing.
#pragma once

#include <cerrno>
#include <utility>
#include <variant>

namespace phaul {

struct Failure {
  int error;
  const char* syscall;

  static Failure last(const char* syscall) { return {errno, syscall}; }
};

template <typename Value>
class [[nodiscard]] Outcome {
 public:
  Outcome(Value value) : state_(std::move(value)) {}
  Outcome(Failure failure) : state_(failure) {}

  explicit operator bool() const { return std::holds_alternative<Value>(state_); }
  Value& operator*() { return *std::get_if<Value>(&state_); }
  Value* operator->() { return std::get_if<Value>(&state_); }
  const Failure& failure() const { return *std::get_if<Failure>(&state_); }

 private:
  std::variant<Value, Failure> state_;
};

struct Nothing {};
using Done = Outcome<Nothing>;

}  // namespace phaul
