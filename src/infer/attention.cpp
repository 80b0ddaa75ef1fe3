#include "infer/attention.h"

#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <memory>
#include <new>
#include <vector>

#include "infer/attention_kernel.h"
#include "infer/processor.h"

namespace tailor {
namespace {

using attention::Kernel;
using attention::OwnCell;

/// Which cells each token attends to, sorted into tiles of tokens that have many in common.
class Plan {
 public:
  Plan(const AttentionCall& call, int tile_tokens, const Kernel& kernel)
      : call_(call), words_(static_cast<std::size_t>(call.cells) / 64) {
    const auto tokens = static_cast<std::size_t>(call.tokens);
    zero_.resize(tokens * words_);
    live_.resize(tokens * words_);
    std::vector<std::size_t> first(tokens);
    for (std::size_t i = 0; i < tokens; ++i) {
      kernel.mask_bits(mask(i), call.cells, zero_.data() + i * words_, live_.data() + i * words_);
      const std::uint64_t* const bits = live_.data() + i * words_;
      std::size_t word = 0;
      while (word < words_ && bits[word] == 0) ++word;
      first[i] = word == words_ ? SIZE_MAX : word * 64 + static_cast<std::size_t>(std::countr_zero(bits[word]));
    }
    order_.resize(tokens);
    for (std::size_t i = 0; i < tokens; ++i) order_[i] = static_cast<std::int32_t>(i);
    std::stable_sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) {
      return first[static_cast<std::size_t>(a)] < first[static_cast<std::size_t>(b)];
    });
    own_begin_.resize(tokens);
    own_count_.resize(tokens);
    const auto width = static_cast<std::size_t>(tile_tokens);
    for (std::size_t begin = 0; begin < tokens; begin += width) add_tile(begin, std::min(width, tokens - begin));
  }

  struct TilePlan {
    std::size_t begin, count;  // of order()
    std::size_t common_begin, common_count;
  };
  const std::vector<TilePlan>& tiles() const { return tiles_; }
  std::int32_t token(std::size_t i) const { return order_[i]; }
  const std::int32_t* common(const TilePlan& tile) const { return common_.data() + tile.common_begin; }
  const OwnCell* own(std::size_t i) const { return own_.data() + own_begin_[i]; }
  int own_count(std::size_t i) const { return own_count_[i]; }
  int most_own() const { return own_count_.empty() ? 0 : *std::max_element(own_count_.begin(), own_count_.end()); }

 private:
  const std::uint16_t* mask(std::size_t token) const {
    return reinterpret_cast<const std::uint16_t*>(call_.mask + call_.mask_token * token);
  }

  void add_tile(std::size_t begin, std::size_t count) {
    TilePlan tile{begin, count, common_.size(), 0};
    std::vector<std::uint64_t> shared(words_, ~std::uint64_t{0});
    if (call_.shared_cells >= 0) {
      for (std::size_t w = 0; w < words_; ++w) {
        const std::int64_t left = call_.shared_cells - static_cast<std::int64_t>(w) * 64;
        shared[w] = left >= 64 ? ~std::uint64_t{0} : left > 0 ? (std::uint64_t{1} << left) - 1 : 0;
      }
    } else if (count == 1) {
      // Alone, a token shares with nobody: reading its cells once for all is then no gain, but costs the unpacking.
      std::fill(shared.begin(), shared.end(), 0);
    }
    for (std::size_t i = begin; i < begin + count; ++i) {
      const std::uint64_t* const zero = zero_.data() + static_cast<std::size_t>(order_[i]) * words_;
      for (std::size_t w = 0; w < words_; ++w) shared[w] &= zero[w];
    }
    for (std::size_t w = 0; w < words_; ++w) {
      for (std::uint64_t bits = shared[w]; bits != 0; bits &= bits - 1)
        common_.push_back(static_cast<std::int32_t>(w * 64) + std::countr_zero(bits));
    }
    tile.common_count = common_.size() - tile.common_begin;
    for (std::size_t i = begin; i < begin + count; ++i) {
      const auto token = static_cast<std::size_t>(order_[i]);
      const std::uint16_t* const row = mask(token);
      own_begin_[i] = own_.size();
      for (std::size_t w = 0; w < words_; ++w) {
        for (std::uint64_t bits = live_[token * words_ + w] & ~shared[w]; bits != 0; bits &= bits - 1) {
          const std::size_t cell = w * 64 + static_cast<std::size_t>(std::countr_zero(bits));
          own_.push_back({static_cast<std::int32_t>(cell), ggml_fp16_to_fp32(row[cell])});
        }
      }
      own_count_[i] = static_cast<int>(own_.size() - own_begin_[i]);
    }
    tiles_.push_back(tile);
  }

  const AttentionCall& call_;
  std::size_t words_;
  std::vector<std::uint64_t> zero_, live_;  // [token][word]
  std::vector<std::int32_t> order_;
  std::vector<std::int32_t> common_;
  std::vector<OwnCell> own_;
  std::vector<std::size_t> own_begin_;
  std::vector<int> own_count_;
  std::vector<TilePlan> tiles_;
};

void run_tile(const AttentionCall& call, const Plan& plan, const Plan::TilePlan& planned, int kv_head, int first,
              int group, const Kernel& kernel, float* scratch, float* scores) {
  const float* queries[attention::kMostRows];
  float* out[attention::kMostRows];
  const OwnCell* own[attention::kMostRows];
  int own_count[attention::kMostRows];
  int row = 0;
  for (std::size_t i = 0; i < planned.count; ++i) {
    const auto token = static_cast<std::size_t>(plan.token(planned.begin + i));
    own[i] = plan.own(planned.begin + i);
    own_count[i] = plan.own_count(planned.begin + i);
    for (int g = 0; g < group; ++g, ++row) {
      const auto head = static_cast<std::size_t>(kv_head * (call.heads / call.kv_heads) + first + g);
      queries[row] = reinterpret_cast<const float*>(call.queries + call.query_token * token + call.query_head * head);
      out[row] =
          call.out + (token * static_cast<std::size_t>(call.heads) + head) * static_cast<std::size_t>(call.value_width);
    }
  }
  const auto kv = static_cast<std::size_t>(kv_head);
  kernel.tile({.tokens = static_cast<int>(planned.count),
               .group = group,
               .key_width = call.key_width,
               .value_width = call.value_width,
               .scale = call.scale,
               .softcap = call.softcap,
               .queries = queries,
               .out = out,
               .keys = call.keys + call.key_head * kv,
               .values = call.values + call.value_head * kv,
               .key_cell = call.key_cell,
               .value_cell = call.value_cell,
               .common = plan.common(planned),
               .common_count = static_cast<int>(planned.common_count),
               .own = own,
               .own_count = own_count,
               .scores = scores},
              scratch);
}

/// A thread's own, kept for its next call.
float* scratch(const Kernel& kernel) {
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<float[], Free> held;
  thread_local std::size_t floats = 0;
  if (floats < kernel.scratch_floats) {
    held.reset(new (std::align_val_t{64}) float[kernel.scratch_floats]);
    floats = kernel.scratch_floats;
  }
  return held.get();
}

}  // namespace

bool attention_width(std::int64_t width) {
  return width > 0 && width % 16 == 0 && width <= attention::kMostWidth;
}

void attention::attend(const AttentionCall& call, int threads, const Kernel& kernel) {
  const int whole_group = call.heads / call.kv_heads;
  const int group = std::min(whole_group, 16);  // of many heads that share keys, so many at once
  const int parts = (whole_group + group - 1) / group;
  // Not by the number of threads, which may change from call to call: what is summed with what decides the last digits.
  const int tile_tokens = std::max(1, 32 / group);
  const Plan plan(call, tile_tokens, kernel);
  const int count = static_cast<int>(plan.tiles().size()) * call.kv_heads * parts;
  std::atomic<int> next{0};
  const auto work = [&] {
    float* const memory = scratch(kernel);
    thread_local std::vector<float> scores;
    const auto floats = static_cast<std::size_t>((plan.most_own() + 15) / 16 * 16 * attention::kOwnRows);
    if (call.shared_cells >= 0 && scores.size() < floats) scores.resize(floats);
    for (int item = next.fetch_add(1, std::memory_order_relaxed); item < count;
         item = next.fetch_add(1, std::memory_order_relaxed)) {
      const int part = item % parts, head = item / parts % call.kv_heads, tile = item / parts / call.kv_heads;
      const int first = part * group;
      run_tile(call, plan, plan.tiles()[static_cast<std::size_t>(tile)], head, first,
               std::min(group, whole_group - first), kernel, memory, call.shared_cells >= 0 ? scores.data() : nullptr);
    }
  };
  if (threads <= 1 || count == 1) return work();
#pragma omp parallel num_threads(threads)
  work();
}

void attend(const AttentionCall& call, int threads) {
  static const Kernel& kernel = runs(InstructionSet::kAvx512) ? attention::kernel_avx512()
                                : runs(InstructionSet::kAvx2) ? attention::kernel_avx2()
                                                              : attention::kernel_portable();
  attention::attend(call, threads, kernel);
}

}  // namespace tailor
