#pragma once
/// The tokens of words that were met before. Texts repeat their words, and the cache answers in some 20 ns.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

/// Of one thread at a time. Bounded: beyond kMostWords it forgets all of them and begins anew, which common words
/// survive.
class WordCache {
 public:
  static constexpr std::size_t kLongestWord = 48;  // bytes; longer ones are rare and are not kept
  static constexpr std::size_t kMostWords = 1 << 16;

  WordCache();

  /// Appends the tokens of `word`; where they are not known, `encode(word, out)` appends them first.
  template <typename Encode>
  void append(std::string_view word, std::vector<std::int32_t>& out, const Encode& encode) {
    if (word.size() > kLongestWord) return encode(word, out);
    const std::uint64_t hash = hash_of(word);
    if (const Slot* slot = find(word, hash)) {
      const std::int32_t* ids = ids_.data() + slot->ids_at;
      if (slot->ids == 1)
        out.push_back(*ids);  // most words
      else
        out.insert(out.end(), ids, ids + slot->ids);
      return;
    }
    const std::size_t before = out.size();
    encode(word, out);
    keep(word, hash, std::span(out).subspan(before));
  }

  std::size_t words() const { return words_; }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::uint32_t key_at = 0;
    std::uint32_t ids_at = 0;
    std::uint16_t ids = 0;
    std::uint16_t bytes = 0;  // of the word; 0: the slot is free
  };

  static std::uint64_t hash_of(std::string_view word);
  const Slot* find(std::string_view word, std::uint64_t hash) const;
  void keep(std::string_view word, std::uint64_t hash, std::span<const std::int32_t> ids);
  void place(const Slot& slot);
  void resize(std::size_t slots);

  std::vector<Slot> slots_;  // a power of two; open addressing, at most half of them taken
  std::string keys_;
  std::vector<std::int32_t> ids_;
  std::size_t words_ = 0;
};

/// Caches for as many threads as ask at once; safe to share.
class WordCachePool {
 public:
  /// A cache for the life of the object.
  class Lease {
   public:
    explicit Lease(WordCachePool& pool) : pool_(pool), cache_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordCache& operator*() const { return *cache_; }

   private:
    WordCachePool& pool_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take();
  void give_back(std::unique_ptr<WordCache> cache);

  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> free_;
};

}  // namespace tailor
