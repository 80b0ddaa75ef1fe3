#include "infer/bert_encoder.h"

#include <algorithm>
#include <cmath>

#include "core/fast_math.h"

namespace tailor {
namespace {

constexpr std::size_t kLanes = 8;  // partial sums, so that the compiler may vectorise without reordering

float sum_of(const float* x, std::size_t n) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += x[i + k];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i];
  for (const float l : lanes) sum += l;
  return sum;
}

float square_distance(const float* x, float mean, std::size_t n) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += (x[i + k] - mean) * (x[i + k] - mean);
  }
  float sum = 0;
  for (; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
  for (const float l : lanes) sum += l;
  return sum;
}

TAILOR_ALSO_FOR_AVX2 void gelu_all(std::vector<float>& values) {
  for (float& v : values) v = gelu(v);
}

/// Grows a table of cosines and sines to `places` places: angle place base^(-2 i / width) of pair i.
void grow_turns(std::size_t places, std::size_t width, double base, std::vector<float>& table) {
  for (std::size_t p = table.size() / width; p < places; ++p) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width));
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

}  // namespace

void BertEncoder::add_bottleneck(const Bottleneck& adapter, const float* x, float* states, std::size_t rows,
                                 Scratch& s) const {
  s.narrow.resize(rows * adapter.down.out());
  s.added.resize(rows * width_);
  adapter.down.forward(x, rows, s.narrow.data());
  for (float& v : s.narrow) v = adapter_gelu_ ? gelu(v) : std::max(v, 0.0f);
  adapter.up.forward(s.narrow.data(), rows, s.added.data());
  for (std::size_t i = 0; i < rows * width_; ++i) states[i] += adapter_scale_ * s.added[i];
}

/// states = LayerNorm(states + residual); `residual` may be null.
TAILOR_ALSO_FOR_AVX2 void BertEncoder::normalise(const Norm& norm, const float* residual, float* states,
                                                 std::size_t rows) const {
  const float n = static_cast<float>(width_);
  for (std::size_t r = 0; r < rows; ++r) {
    float* x = states + r * width_;
    if (residual != nullptr) {
      for (std::size_t i = 0; i < width_; ++i) x[i] += residual[r * width_ + i];
    }
    const float mean = sum_of(x, width_) / n;
    const float scale = 1.0f / std::sqrt(square_distance(x, mean, width_) / n + epsilon_);
    if (norm.shift.empty()) {
      for (std::size_t i = 0; i < width_; ++i) x[i] = (x[i] - mean) * scale * norm.scale[i];
    } else {
      for (std::size_t i = 0; i < width_; ++i) x[i] = (x[i] - mean) * scale * norm.scale[i] + norm.shift[i];
    }
  }
}

TAILOR_ALSO_FOR_AVX2 void BertEncoder::attend(std::span<const std::span<const std::int32_t>> texts,
                                              std::ptrdiff_t reach, Scratch& s) const {
  const std::size_t size = width_ / heads_, stride = 3 * width_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  std::size_t start = 0;
  for (const std::span<const std::int32_t> text : texts) {
    const std::size_t n = text.size();
    s.keys.resize(size * n);
    s.scores.resize(n);
    for (std::size_t head = 0; head < heads_; ++head) {
      const float* base = s.queries_keys_values.data() + start * stride + head * size;
      for (std::size_t j = 0; j < n; ++j) {  // keys by column: scores of all tokens at once
        for (std::size_t d = 0; d < size; ++d) s.keys[d * n + j] = base[j * stride + width_ + d];
      }
      for (std::size_t i = 0; i < n; ++i) {
        const auto far = static_cast<std::size_t>(reach < 0 ? static_cast<std::ptrdiff_t>(n) : reach);
        const std::size_t first = i > far ? i - far : 0, seen = std::min(n, i + far + 1) - first;
        const float* query = base + i * stride;
        float* scores = s.scores.data();
        std::fill_n(scores, seen, 0.0f);
        for (std::size_t d = 0; d < size; ++d) {
          const float q = query[d] * scale;
          const float* keys = s.keys.data() + d * n + first;
          for (std::size_t j = 0; j < seen; ++j) scores[j] += q * keys[j];
        }
        const float highest = *std::max_element(scores, scores + seen);
        for (std::size_t j = 0; j < seen; ++j) scores[j] = exp_nonpositive(scores[j] - highest);
        const float normaliser = 1.0f / sum_of(scores, seen);
        float* out = s.attended.data() + (start + i) * width_ + head * size;
        std::fill_n(out, size, 0.0f);
        for (std::size_t j = 0; j < seen; ++j) {
          const float p = scores[j] * normaliser;
          const float* value = base + (first + j) * stride + 2 * width_;
          for (std::size_t d = 0; d < size; ++d) out[d] += p * value[d];
        }
      }
    }
    start += n;
  }
}

void BertEncoder::turn(std::span<const std::span<const std::int32_t>> texts, const std::vector<float>& turns,
                       Scratch& s) const {
  const std::size_t size = width_ / heads_, half = size / 2;
  float* row = s.queries_keys_values.data();
  for (const std::span<const std::int32_t> text : texts) {
    for (std::size_t p = 0; p < text.size(); ++p, row += 3 * width_) {
      const float* by = turns.data() + p * size;
      for (float* x = row; x < row + 2 * width_; x += size) {  // a head of the queries, then of the keys
        for (std::size_t i = 0; i < half; ++i) {
          const float a = x[i], b = x[i + half];
          x[i] = a * by[2 * i] - b * by[2 * i + 1];
          x[i + half] = b * by[2 * i] + a * by[2 * i + 1];
        }
      }
    }
  }
}

void BertEncoder::bert_layers(std::span<const std::span<const std::int32_t>> texts, std::size_t rows,
                              Scratch& s) const {
  for (const Layer& layer : layers_) {
    layer.queries_keys_values.forward(s.states.data(), rows, s.queries_keys_values.data());
    attend(texts, -1, s);
    layer.attention_out.forward(s.attended.data(), rows, s.other.data());
    if (layer.after_attention) add_bottleneck(*layer.after_attention, s.other.data(), s.other.data(), rows, s);
    normalise(layer.attention_norm, s.states.data(), s.other.data(), rows);
    s.wide.resize(rows * layer.up.out());
    layer.up.forward(s.other.data(), rows, s.wide.data());
    gelu_all(s.wide);
    layer.down.forward(s.wide.data(), rows, s.states.data());
    if (layer.feed_forward_adapter) {
      const float* x = adapter_parallel_ ? s.other.data() : s.states.data();
      add_bottleneck(*layer.feed_forward_adapter, x, s.states.data(), rows, s);
    }
    normalise(layer.output_norm, s.other.data(), s.states.data(), rows);
  }
}

void BertEncoder::modern_layers(std::span<const std::span<const std::int32_t>> texts, std::size_t rows,
                                Scratch& s) const {
  const std::size_t size = width_ / heads_;
  std::size_t longest = 0;
  for (const auto& text : texts) longest = std::max(longest, text.size());
  grow_turns(longest, size, modern_->global_base, s.global_turns);
  grow_turns(longest, size, modern_->local_base, s.local_turns);
  const auto add = [&](const std::vector<float>& part) {
    for (std::size_t i = 0; i < rows * width_; ++i) s.states[i] += part[i];
  };
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const bool global = modern_->is_global(static_cast<std::int64_t>(l));
    s.normed.assign(s.states.begin(), s.states.end());
    if (l > 0) normalise(layer.attention_norm, nullptr, s.normed.data(), rows);
    layer.queries_keys_values.forward(s.normed.data(), rows, s.queries_keys_values.data());
    turn(texts, global ? s.global_turns : s.local_turns, s);
    attend(texts, global ? -1 : static_cast<std::ptrdiff_t>(modern_->window / 2), s);
    layer.attention_out.forward(s.attended.data(), rows, s.other.data());
    if (layer.after_attention) add_bottleneck(*layer.after_attention, s.other.data(), s.other.data(), rows, s);
    add(s.other);
    s.normed.assign(s.states.begin(), s.states.end());
    normalise(layer.output_norm, nullptr, s.normed.data(), rows);
    const std::size_t inner = layer.down.in();
    s.wide.resize(rows * 2 * inner);
    layer.up.forward(s.normed.data(), rows, s.wide.data());
    for (std::size_t r = 0; r < rows; ++r) {  // gelu(a) g of [a, g], packed at the front
      const float* x = s.wide.data() + r * 2 * inner;
      float* y = s.wide.data() + r * inner;
      for (std::size_t i = 0; i < inner; ++i) y[i] = gelu(x[i]) * x[inner + i];
    }
    layer.down.forward(s.wide.data(), rows, s.other.data());
    if (layer.feed_forward_adapter) {
      const float* x = adapter_parallel_ ? s.normed.data() : s.other.data();
      add_bottleneck(*layer.feed_forward_adapter, x, s.other.data(), rows, s);
    }
    add(s.other);
  }
  normalise(final_norm_, nullptr, s.states.data(), rows);
}

std::span<const float> BertEncoder::hidden_states(std::span<const std::span<const std::int32_t>> texts, Scratch& s,
                                                  std::int32_t separator) const {
  std::size_t rows = 0;
  for (const std::span<const std::int32_t> text : texts) rows += text.size();
  s.states.resize(rows * width_);
  s.other.resize(rows * width_);
  s.attended.resize(rows * width_);
  s.queries_keys_values.resize(rows * 3 * width_);
  std::size_t row = 0;
  for (const std::span<const std::int32_t> text : texts) {
    bool second = false;
    for (std::size_t p = 0; p < text.size(); ++p, ++row) {
      const float* token = tokens_.data() + static_cast<std::size_t>(text[p]) * width_;
      float* state = s.states.data() + row * width_;
      std::copy_n(token, width_, state);
      if (modern_) continue;
      const float* position = positions_.data() + p * width_;
      for (std::size_t i = 0; i < width_; ++i) state[i] += position[i];
      if (second && !second_type_.empty()) {
        for (std::size_t i = 0; i < width_; ++i) s.states[row * width_ + i] += second_type_[i];
      }
      second = second || (separator >= 0 && text[p] == separator);
    }
  }
  normalise(embedding_norm_, nullptr, s.states.data(), rows);
  if (modern_) {
    modern_layers(texts, rows, s);
  } else {
    bert_layers(texts, rows, s);
  }
  return {s.states.data(), rows * width_};
}

}  // namespace tailor
