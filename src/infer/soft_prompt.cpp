#include "infer/soft_prompt.h"

#include <fmt/format.h>
#include <ggml.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "core/decoder_layout.h"
#include "core/safetensors.h"
#include "core/soft_prompt_file.h"
#include "infer/llama_context.h"

namespace tailor {
namespace {

Matrix to_matrix(const SafeTensor& tensor) {
  Matrix m(static_cast<std::size_t>(tensor.shape[0]), static_cast<std::size_t>(tensor.shape[1]));
  std::memcpy(m.data.data(), tensor.bytes.data(), tensor.bytes.size());
  return m;
}

Error bad_file(const std::filesystem::path& file, const std::string& what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "make the package again"};
}

Error does_not_fit(const std::string& what) {
  return {ErrorCode::kInvalidArgument, "the soft prompt does not fit the model: " + what,
          "a soft prompt fits only the model that it was trained on"};
}

Status decode_embeddings(llama_context* context, const Matrix& embeddings, int most) {
  const llama_model* model = llama_get_model(context);
  const auto width = static_cast<std::size_t>(llama_model_n_embd(model));
  if (embeddings.cols != width)
    return does_not_fit(fmt::format("its vectors have {} numbers, the model's {}", embeddings.cols, width));
  std::vector<float> values = embeddings.data;  // the interface takes no const
  // Of the families whose words are scaled, llama.cpp scales vectors that come in the place of words in this one only.
  if (model_metadata(model, "general.architecture") == gguf_architecture(DecoderFamily::kGemma2)) {
    const float scale = std::sqrt(static_cast<float>(width));
    for (float& v : values) v /= scale;
  }
  for (std::size_t first = 0; first < embeddings.rows; first += static_cast<std::size_t>(most)) {
    const std::size_t n = std::min(static_cast<std::size_t>(most), embeddings.rows - first);
    std::vector<llama_pos> positions(n);
    std::vector<std::int32_t> counts(n, 1);
    llama_seq_id sequence = 0;
    std::vector<llama_seq_id*> sequences(n, &sequence);
    std::vector<std::int8_t> outputs(n, 0);
    for (std::size_t i = 0; i < n; ++i) positions[i] = static_cast<llama_pos>(first + i);
    llama_batch batch{};
    batch.n_tokens = static_cast<std::int32_t>(n);
    batch.embd = values.data() + first * width;
    batch.pos = positions.data();
    batch.n_seq_id = counts.data();
    batch.seq_id = sequences.data();
    batch.logits = outputs.data();
    if (const int code = llama_decode(context, batch); code != 0)
      return Error{ErrorCode::kInternal, fmt::format("llama.cpp failed on a soft prompt (code {})", code), ""};
  }
  return {};
}

/// Walks through the bytes of llama.cpp's saved sequence; every field is checked against what is expected there.
class StatePatcher {
 public:
  explicit StatePatcher(std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}

  template <typename T>
  std::optional<T> read() {
    if (at_ + sizeof(T) > bytes_.size()) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  template <typename T>
  bool expect(T value) {
    if (at_ + sizeof(T) > bytes_.size() || std::memcmp(bytes_.data() + at_, &value, sizeof(T)) != 0) return false;
    at_ += sizeof(T);
    return true;
  }
  /// One number of a cache, f16 or f32.
  bool put(float value, ggml_type type) {
    const std::size_t size = ggml_type_size(type);
    if (at_ + size > bytes_.size()) return false;
    if (type == GGML_TYPE_F32) {
      std::memcpy(bytes_.data() + at_, &value, sizeof value);
    } else {
      const ggml_fp16_t half = ggml_fp32_to_fp16(value);
      std::memcpy(bytes_.data() + at_, &half, sizeof half);
    }
    at_ += size;
    return true;
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::vector<std::uint8_t>& bytes_;
  std::size_t at_ = 0;
};

/// The layers of each cache of llama.cpp, in the order in which it saves them: one cache of all layers; or one of those
/// that see the whole text and one of those that see a window.
std::vector<std::vector<std::size_t>> layers_of_caches(const llama_model* model) {
  const std::string architecture = model_metadata(model, "general.architecture");
  const auto family = family_of_architecture(architecture);
  LayerWindows windows = family ? usual_windows(*family) : LayerWindows{};
  if (windows.every > 1) {
    const auto number = [&](const char* key, std::int64_t usual) {
      const std::string text = model_metadata(model, architecture + ".attention." + key);
      return text.empty() ? usual : static_cast<std::int64_t>(std::strtoll(text.c_str(), nullptr, 10));
    };
    windows = {number("sliding_window", windows.tokens), number("sliding_window_pattern", windows.every)};
  }
  std::vector<std::vector<std::size_t>> caches(windows.tokens > 0 ? 2 : 1);
  for (std::int64_t layer = 0; layer < llama_model_n_layer(model); ++layer)
    caches[windows.has(layer) ? 1 : 0].push_back(static_cast<std::size_t>(layer));
  return caches;
}

/// The cells' keys (a row a cell), then their values: a row a cell, or turned (without flash attention).
bool patch_cells(StatePatcher& at, const SoftPrompt& prompt, const std::vector<std::size_t>& layers,
                 const std::vector<std::size_t>& cells, ggml_type type, bool turned) {
  const std::size_t width = prompt.keys[0].cols, size = ggml_type_size(type);
  if (!at.expect<std::uint32_t>(turned ? 1 : 0) || !at.expect(static_cast<std::uint32_t>(layers.size()))) return false;
  const auto rows = [&](const Matrix& m) {
    if (!at.expect(static_cast<std::int32_t>(type)) || !at.expect(static_cast<std::uint64_t>(width * size)))
      return false;
    for (const std::size_t cell : cells) {
      for (std::size_t j = 0; j < width; ++j) {
        if (!at.put(m.row(cell)[j], type)) return false;
      }
    }
    return true;
  };
  for (const std::size_t layer : layers) {
    if (!rows(prompt.keys[layer])) return false;
  }
  for (const std::size_t layer : layers) {
    const Matrix& values = prompt.values[layer];
    if (!turned) {
      if (!rows(values)) return false;
      continue;
    }
    if (!at.expect(static_cast<std::int32_t>(type)) || !at.expect(static_cast<std::uint32_t>(size)) ||
        !at.expect(static_cast<std::uint32_t>(width)))
      return false;
    for (std::size_t j = 0; j < width; ++j) {
      for (const std::size_t cell : cells) {
        if (!at.put(values.row(cell)[j], type)) return false;
      }
    }
  }
  return true;
}

/// Sequence 0 as llama_state_seq_get_data() gives it: two numbers, then for each cache its streams, of which the first
/// holds the sequence, and of that the cells' positions and contents. A window's cache holds the last cells only.
bool patch(std::vector<std::uint8_t>& state, const SoftPrompt& prompt,
           const std::vector<std::vector<std::size_t>>& caches, ggml_type type, bool turned) {
  StatePatcher at(state);
  if (!at.read<std::uint32_t>() || !at.expect<llama_seq_id>(0)) return false;
  for (const std::vector<std::size_t>& layers : caches) {
    const auto streams = at.read<std::uint32_t>();
    if (!streams) return false;
    for (std::uint32_t stream = 0; stream < *streams; ++stream) {
      const auto count = at.read<std::uint32_t>();
      if (!count || (stream > 0 && *count > 0) || *count > prompt.keys[0].rows) return false;
      if (*count == 0) continue;
      std::vector<std::size_t> cells;
      for (std::uint32_t i = 0; i < *count; ++i) {
        const auto position = at.read<llama_pos>();
        if (!position || *position < 0 || static_cast<std::size_t>(*position) >= prompt.keys[0].rows) return false;
        if (!at.expect<std::uint32_t>(1) || !at.expect<llama_seq_id>(0)) return false;  // held by one sequence: this
        cells.push_back(static_cast<std::size_t>(*position));
      }
      if (!patch_cells(at, prompt, layers, cells, type, turned)) return false;
    }
  }
  return at.at_end();
}

Status set_keys_and_values(llama_context* context, const SoftPrompt& prompt, int most) {
  const llama_model* model = llama_get_model(context);
  const auto layers = static_cast<std::size_t>(llama_model_n_layer(model));
  if (prompt.keys.size() != layers)
    return does_not_fit(fmt::format("it has {} layers, the model {}", prompt.keys.size(), layers));
  // Any tokens make the cells; what they leave is then replaced.
  Matrix zeros(prompt.keys[0].rows, static_cast<std::size_t>(llama_model_n_embd(model)));
  std::fill(zeros.data.begin(), zeros.data.end(), 0.01f);
  TAILOR_CHECK(decode_embeddings(context, zeros, most));
  std::vector<std::uint8_t> state(llama_state_seq_get_size(context, 0));
  if (llama_state_seq_get_data(context, state.data(), state.size(), 0) != state.size())
    return Error{ErrorCode::kInternal, "llama.cpp did not hand out the state of a sequence", ""};
  const auto caches = layers_of_caches(model);
  bool patched = false;
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_F32}) {
    for (const bool turned : {false, true}) {
      if (patched) break;
      std::vector<std::uint8_t> changed = state;
      patched = patch(changed, prompt, caches, type, turned);
      if (patched) state = std::move(changed);
    }
  }
  if (!patched) return does_not_fit("keys and values have other sizes, or this llama.cpp keeps them in another layout");
  llama_memory_clear(llama_get_memory(context), false);
  if (llama_state_seq_set_data(context, state.data(), state.size(), 0) != state.size())
    return Error{ErrorCode::kInternal, "llama.cpp did not take the state of a sequence", ""};
  return {};
}

}  // namespace

int SoftPrompt::length() const {
  return static_cast<int>(keys.empty() ? embeddings.rows : keys[0].rows);
}

Result<SoftPrompt> SoftPrompt::load(const std::filesystem::path& path) {
  TAILOR_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  const auto& metadata = file.metadata();
  const auto format = metadata.find("format"), version = metadata.find("version");
  if (format == metadata.end() || format->second != kSoftPromptFormat || version == metadata.end() ||
      version->second != "1")
    return bad_file(path, "not a soft prompt, version 1");
  SoftPrompt prompt;
  if (file.find(kSoftPromptEmbeddings) != nullptr) {
    TAILOR_TRY(const SafeTensor tensor, file.get(kSoftPromptEmbeddings, "F32", 2));
    prompt.embeddings = to_matrix(tensor);
  }
  for (std::size_t layer = 0; file.find(fmt::format("blk.{}.keys", layer)) != nullptr; ++layer) {
    TAILOR_TRY(const SafeTensor keys, file.get(fmt::format("blk.{}.keys", layer), "F32", 2));
    TAILOR_TRY(const SafeTensor values, file.get(fmt::format("blk.{}.values", layer), "F32", 2));
    if (keys.shape != values.shape || (layer > 0 && keys.shape[0] != static_cast<std::int64_t>(prompt.keys[0].rows)))
      return bad_file(path, fmt::format("keys and values of layer {} have other shapes than those before", layer));
    prompt.keys.push_back(to_matrix(keys));
    prompt.values.push_back(to_matrix(values));
  }
  const auto finite = [](const Matrix& m) {
    return std::all_of(m.data.begin(), m.data.end(), [](float v) { return std::isfinite(v); });
  };
  if (prompt.empty() || (prompt.embeddings.rows > 0 && !prompt.keys.empty()))
    return bad_file(path, "it should hold either embeddings or keys and values");
  if (!finite(prompt.embeddings) || !std::all_of(prompt.keys.begin(), prompt.keys.end(), finite) ||
      !std::all_of(prompt.values.begin(), prompt.values.end(), finite))
    return bad_file(path, "it holds a value that is not a number");
  return prompt;
}

Status decode_soft_prompt(llama_context* context, const SoftPrompt& prompt, int most) {
  if (prompt.empty()) return {};
  if (!prompt.keys.empty()) return set_keys_and_values(context, prompt, most);
  return decode_embeddings(context, prompt.embeddings, most);
}

}  // namespace tailor
