#include "model/word_cache.h"

#include <cstring>
#include <limits>

namespace tailor {
namespace {

constexpr std::size_t kFirstSlots = 256;

template <typename T>
std::uint64_t load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

std::uint64_t mixed(std::uint64_t h) {
  h *= 0x9E3779B97F4A7C15ULL;
  return h ^ (h >> 32);
}

}  // namespace

WordCache::WordCache() : slots_(kFirstSlots) {}

std::uint64_t WordCache::hash_of(std::string_view word) {
  const char* p = word.data();
  const std::size_t n = word.size();
  std::uint64_t h = n;
  if (n >= 8) {
    for (std::size_t i = 0; i + 8 < n; i += 8) h = mixed(h ^ load<std::uint64_t>(p + i));
    return mixed(h ^ load<std::uint64_t>(p + n - 8));
  }
  if (n >= 4) return mixed(h ^ (load<std::uint32_t>(p) << 32 | load<std::uint32_t>(p + n - 4)));
  for (std::size_t i = 0; i < n; ++i) h = h << 8 | static_cast<unsigned char>(p[i]);
  return mixed(h);
}

const WordCache::Slot* WordCache::find(std::string_view word, std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.bytes == 0) return nullptr;
    if (slot.hash == static_cast<std::uint32_t>(hash) && slot.bytes == word.size() &&
        std::memcmp(keys_.data() + slot.key_at, word.data(), word.size()) == 0)
      return &slot;
  }
}

void WordCache::keep(std::string_view word, std::uint64_t hash, std::span<const std::int32_t> ids) {
  if (word.empty() || ids.size() > std::numeric_limits<std::uint16_t>::max()) return;
  if (words_ == kMostWords) {
    slots_.assign(kFirstSlots, Slot());
    keys_.clear();
    ids_.clear();
    words_ = 0;
  }
  if (2 * (words_ + 1) > slots_.size()) resize(2 * slots_.size());
  Slot slot;
  slot.hash = static_cast<std::uint32_t>(hash);
  slot.key_at = static_cast<std::uint32_t>(keys_.size());
  slot.ids_at = static_cast<std::uint32_t>(ids_.size());
  slot.ids = static_cast<std::uint16_t>(ids.size());
  slot.bytes = static_cast<std::uint16_t>(word.size());
  keys_.append(word);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  place(slot);
  ++words_;
}

void WordCache::place(const Slot& slot) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = slot.hash & mask;
  while (slots_[i].bytes != 0) i = (i + 1) & mask;
  slots_[i] = slot;
}

void WordCache::resize(std::size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.bytes != 0) place(slot);
  }
}

std::unique_ptr<WordCache> WordCachePool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::unique_ptr<WordCache> cache = std::move(free_.back());
      free_.pop_back();
      return cache;
    }
  }
  return std::make_unique<WordCache>();
}

void WordCachePool::give_back(std::unique_ptr<WordCache> cache) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(cache));
}

}  // namespace tailor
