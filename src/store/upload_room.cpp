#include "store/upload_room.h"

namespace tailor {
namespace {

constexpr std::int64_t kBelieved = 60;

}  // namespace

bool UploadRoom::take(const std::string& name, std::int64_t bytes, std::int64_t most, std::int64_t now) {
  const std::lock_guard lock(mutex_);
  Owner& owner = owners_[name];
  const std::int64_t stored = now < owner.believed_until ? owner.stored : 0;
  if (bytes > most - stored - owner.coming) return false;
  owner.coming += bytes;
  return true;
}

void UploadRoom::give_back(const std::string& name, std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  owners_[name].coming -= bytes;
  drop_if_empty(name);
}

void UploadRoom::set_stored(const std::string& name, std::int64_t bytes, std::int64_t now) {
  const std::lock_guard lock(mutex_);
  owners_[name].stored = bytes;
  owners_[name].believed_until = now + kBelieved;
}

void UploadRoom::forget_stored(const std::string& name) {
  const std::lock_guard lock(mutex_);
  owners_[name].believed_until = 0;
  drop_if_empty(name);
}

std::int64_t UploadRoom::taken(const std::string& name, std::int64_t now) const {
  const std::lock_guard lock(mutex_);
  const auto found = owners_.find(name);
  if (found == owners_.end()) return 0;
  return found->second.coming + (now < found->second.believed_until ? found->second.stored : 0);
}

void UploadRoom::drop_if_empty(const std::string& name) {
  const auto found = owners_.find(name);
  if (found->second.coming == 0 && found->second.believed_until == 0) owners_.erase(found);
}

}  // namespace tailor
