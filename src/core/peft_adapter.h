#pragma once
/// An adapter directory as PEFT writes it (adapter_config.json, adapter_model.safetensors): LoRA with rsLoRA's scale,
/// DoRA's lengths, ranks and alphas by pattern, modules that were trained whole, rows of single tokens; and IA3. By the
/// names of Hugging Face's modules; which model it fits is for the caller to see.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "core/safetensors.h"

namespace tailor {

/// What the adapter does to one module. The tensors live as long as the PeftAdapter; all hold floats.
struct PeftUpdate {
  std::string module;                     // "model.layers.0.self_attn.q_proj"
  const SafeTensor* a = nullptr;          // [r, in]
  const SafeTensor* b = nullptr;          // [out, r]
  const SafeTensor* magnitude = nullptr;  // [out]: DoRA
  const SafeTensor* scale = nullptr;      // IA3: [out, 1], or [1, in] of a feed-forward module
};

class PeftAdapter {
 public:
  /// Errors: no such files, another kind of adapter, weights as a pickle (adapter_model.bin), values that begin at a
  /// decomposition of the base and fit only what PEFT left of it, tensors of unknown names, half a pair.
  static Result<PeftAdapter> open(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  const Json& config() const { return config_; }
  bool is_lora() const { return lora_; }  // else IA3
  Status check_low_rank() const;          // IA3 is an error: only low-rank adapters can be gone on with
  const std::vector<PeftUpdate>& updates() const { return updates_; }

  /// A tensor of a module that was trained whole: "lm_head.weight", "classifier.out_proj.bias".
  struct Whole {
    std::string name;
    const SafeTensor* tensor = nullptr;
  };
  const std::vector<Whole>& whole() const { return whole_; }
  /// Rows of a table that were trained alone (trainable_token_indices); they take the place of the base's.
  struct Rows {
    std::string module;  // "model.embed_tokens"
    std::vector<std::int64_t> ids;
    const SafeTensor* values = nullptr;  // [ids, width]
  };
  const std::vector<Rows>& rows() const { return rows_; }

  bool flag(const char* key) const;         // of the configuration; absent: false
  std::string text(const char* key) const;  // absent: empty
  /// What B A is multiplied by in this module.
  double scale_of(const std::string& module, std::int64_t rank) const;
  /// lora_alpha of the module, alpha_pattern included.
  double alpha_of(const std::string& module) const;

  /// Of the file of tensors.
  const std::map<std::string, std::string>& metadata() const { return weights_->metadata(); }

  /// unfit_adapter() of the directory.
  Error unfit(const std::string& what) const;

 private:
  explicit PeftAdapter(std::filesystem::path directory) : directory_(std::move(directory)) {}
  Status read_config();
  Status open_weights();
  Status sort_tensors();
  Status add_rows(const std::string& module, const SafeTensor& values);
  std::optional<double> by_pattern(const char* pattern, const std::string& module) const;

  std::filesystem::path directory_;
  Json config_;
  bool lora_ = true;
  std::optional<SafetensorsFile> weights_;
  std::vector<PeftUpdate> updates_;
  std::vector<Whole> whole_;
  std::vector<Rows> rows_;
};

/// kInvalidArgument that names the adapter, a directory or a file.
Error unfit_adapter(const std::filesystem::path& adapter, const std::string& what);

/// "[4, 32]".
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace tailor
