#pragma once
/// What the README of a Hugging Face directory states of its model.

#include <filesystem>
#include <string>
#include <vector>

namespace tailor {

struct ModelCard {
  std::string licence;
  std::vector<std::string> languages;
};

/// "license:" and "language:" of the front matter (the lines between two "---"); empty where there is none.
ModelCard read_model_card(const std::filesystem::path& dir);

}  // namespace tailor
