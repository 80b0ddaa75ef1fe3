#include "infer/soft_prompt.h"

#include <fmt/format.h>
#include <ggml.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/safetensors.h"
#include "core/soft_prompt_file.h"

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
  const auto width = static_cast<std::size_t>(llama_model_n_embd(llama_get_model(context)));
  if (embeddings.cols != width)
    return does_not_fit(fmt::format("its vectors have {} numbers, the model's {}", embeddings.cols, width));
  std::vector<float> values = embeddings.data;  // the interface takes no const
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
  StatePatcher(std::vector<std::uint8_t>& bytes, std::size_t at) : bytes_(bytes), at_(at) {}

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
  std::size_t at_;
};

/// Keys (a row a cell), then values: a row a cell, or turned (without flash attention). At the end of the state.
bool patch(std::vector<std::uint8_t>& state, const SoftPrompt& prompt, ggml_type type, bool turned) {
  const std::size_t n = prompt.keys[0].rows, width = prompt.keys[0].cols, layers = prompt.keys.size();
  const std::size_t size = ggml_type_size(type);
  const std::size_t key_part = sizeof(std::int32_t) + sizeof(std::uint64_t) + n * width * size;
  const std::size_t value_part =
      turned ? sizeof(std::int32_t) + 2 * sizeof(std::uint32_t) + n * width * size : key_part;
  const std::size_t tail = 2 * sizeof(std::uint32_t) + layers * (key_part + value_part);
  if (state.size() < tail) return false;
  StatePatcher at(state, state.size() - tail);
  if (!at.expect<std::uint32_t>(turned ? 1 : 0) || !at.expect(static_cast<std::uint32_t>(layers))) return false;
  const auto rows = [&](const Matrix& m) {
    if (!at.expect(static_cast<std::int32_t>(type)) || !at.expect(static_cast<std::uint64_t>(width * size)))
      return false;
    return std::all_of(m.data.begin(), m.data.end(), [&](float v) { return at.put(v, type); });
  };
  for (const Matrix& keys : prompt.keys) {
    if (!rows(keys)) return false;
  }
  for (const Matrix& values : prompt.values) {
    if (!turned) {
      if (!rows(values)) return false;
      continue;
    }
    if (!at.expect(static_cast<std::int32_t>(type)) || !at.expect(static_cast<std::uint32_t>(size)) ||
        !at.expect(static_cast<std::uint32_t>(width)))
      return false;
    for (std::size_t j = 0; j < width; ++j) {
      for (std::size_t i = 0; i < n; ++i) {
        if (!at.put(values.row(i)[j], type)) return false;
      }
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
  bool patched = false;
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_F32}) {
    for (const bool turned : {false, true}) {
      if (patched) break;
      std::vector<std::uint8_t> changed = state;
      patched = patch(changed, prompt, type, turned);
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
