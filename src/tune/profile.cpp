#include "tune/profile.h"

#include "core/json.h"

namespace tailor::tune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<const char*, kKernels> kNames = {
    "product", "product_backward", "weight_gradient", "adapter_product",     "attention", "attention_backward",
    "norm",    "norm_backward",    "activation",      "activation_backward", "rotary",    "embedding",
    "loss",    "optimiser"};

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Profile::Profile() {
  detail::profile = this;
}

Profile::~Profile() {
  detail::profile = nullptr;
}

void Profile::switch_to(int kernel) {
  const auto now = Clock::now();
  if (now_ >= 0) entries_[static_cast<std::size_t>(now_)].seconds += seconds_between(since_, now);
  since_ = now;
  now_ = kernel;
}

Json Profile::json() const {
  Json kernels = Json::object();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    if (e.calls == 0) continue;
    kernels[kNames[i]] = {{"seconds", e.seconds}, {"flops", e.flops}, {"bytes", e.bytes}, {"calls", e.calls}};
  }
  return {{"steps", steps_}, {"seconds", seconds_}, {"kernels", kernels}};
}

ProfileStep::ProfileStep() : start_(Clock::now()) {
  if (detail::profile != nullptr) detail::profile->in_step_ = true;
}

ProfileStep::~ProfileStep() {
  if (detail::profile == nullptr) return;
  detail::profile->in_step_ = false;
  detail::profile->seconds_ += seconds_between(start_, Clock::now());
  ++detail::profile->steps_;
}

void ProfileScope::begin(Kernel kernel, double flops, double floats) {
  if (!detail::profile->in_step_) return;
  profile_ = detail::profile;
  before_ = profile_->now_;
  const auto k = static_cast<int>(kernel);
  profile_->switch_to(k);
  Profile::Entry& entry = profile_->entries_[static_cast<std::size_t>(k)];
  entry.flops += flops;
  entry.bytes += floats * sizeof(float);
  ++entry.calls;
}

}  // namespace tailor::tune
