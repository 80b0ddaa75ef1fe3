#include "infer/prefix_tree.h"

#include <algorithm>

namespace tailor {

struct PrefixTree::Node {
  Node* parent = nullptr;
  std::vector<std::int32_t> tokens;                        // from the parent to here
  std::map<std::int32_t, std::unique_ptr<Node>> children;  // by their first token
  std::vector<std::int64_t> entries;                       // that end here
};

namespace {

std::size_t common_length(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::size_t>(end - a.begin());
}

template <typename Node>
std::int64_t first_usable(const Node& node, const Node* without, const PrefixTree::Usable& usable) {
  for (const std::int64_t entry : node.entries) {
    if (!usable || usable(entry)) return entry;
  }
  for (const auto& [token, child] : node.children) {
    if (child.get() == without) continue;
    if (const std::int64_t entry = first_usable<Node>(*child, nullptr, usable); entry >= 0) return entry;
  }
  return -1;
}

}  // namespace

PrefixTree::PrefixTree() = default;
PrefixTree::PrefixTree(PrefixTree&&) noexcept = default;
PrefixTree& PrefixTree::operator=(PrefixTree&&) noexcept = default;
PrefixTree::~PrefixTree() = default;

void PrefixTree::insert(const std::string& space, Tokens tokens, std::int64_t entry) {
  remove(entry);
  std::unique_ptr<Node>& root = roots_[space];
  if (!root) root = std::make_unique<Node>();
  Node* node = root.get();
  while (!tokens.empty()) {
    std::unique_ptr<Node>& child = node->children[tokens[0]];
    if (!child) {
      child = std::make_unique<Node>();
      child->parent = node;
      child->tokens.assign(tokens.begin(), tokens.end());
      node = child.get();
      break;
    }
    const std::size_t common = common_length(child->tokens, tokens);
    if (common < child->tokens.size()) {  // a new node between the two
      auto between = std::make_unique<Node>();
      between->parent = node;
      between->tokens.assign(child->tokens.begin(), child->tokens.begin() + static_cast<std::ptrdiff_t>(common));
      child->tokens.erase(child->tokens.begin(), child->tokens.begin() + static_cast<std::ptrdiff_t>(common));
      child->parent = between.get();
      between->children[child->tokens[0]] = std::move(child);
      child = std::move(between);
    }
    node = child.get();
    tokens = tokens.subspan(common);
  }
  node->entries.push_back(entry);
  homes_[entry] = {node, space};
}

void PrefixTree::remove(std::int64_t entry) {
  const auto home = homes_.find(entry);
  if (home == homes_.end()) return;
  Node* node = home->second.node;
  const std::string space = std::move(home->second.space);
  homes_.erase(home);
  std::erase(node->entries, entry);
  while (node->parent != nullptr && node->entries.empty()) {
    Node* parent = node->parent;
    if (node->children.empty()) {
      parent->children.erase(node->tokens[0]);
      node = parent;
      continue;
    }
    if (node->children.size() == 1) {  // joined with what follows
      std::unique_ptr<Node> child = std::move(node->children.begin()->second);
      child->tokens.insert(child->tokens.begin(), node->tokens.begin(), node->tokens.end());
      child->parent = parent;
      parent->children[child->tokens[0]] = std::move(child);  // ends `node`
    }
    return;
  }
  if (node->parent == nullptr && node->entries.empty() && node->children.empty()) roots_.erase(space);
}

PrefixTree::Match PrefixTree::longest(const std::string& space, Tokens tokens, const Usable& usable) const {
  const auto root = roots_.find(space);
  if (root == roots_.end()) return {};
  std::vector<std::pair<const Node*, std::size_t>> path{{root->second.get(), 0}};  // with the tokens in common there
  while (path.back().second < tokens.size()) {
    const auto& [node, length] = path.back();
    const auto child = node->children.find(tokens[length]);
    if (child == node->children.end()) break;
    const std::size_t common = common_length(child->second->tokens, tokens.subspan(length));
    const bool all = common == child->second->tokens.size();
    path.emplace_back(child->second.get(), length + common);
    if (!all) break;
  }
  const Node* searched = nullptr;
  for (; path.size() > 1; path.pop_back()) {
    const auto& [node, length] = path.back();
    if (const std::int64_t entry = first_usable<Node>(*node, searched, usable); entry >= 0) return {length, entry};
    searched = node;
  }
  return {};
}

std::vector<std::int64_t> PrefixTree::beginnings_of(std::int64_t entry) const {
  std::vector<std::int64_t> out;
  const auto home = homes_.find(entry);
  if (home == homes_.end()) return out;
  for (const Node* node = home->second.node; node != nullptr; node = node->parent) {
    for (const std::int64_t other : node->entries) {
      if (other != entry) out.push_back(other);
    }
  }
  return out;
}

bool PrefixTree::continued(std::int64_t entry) const {
  const auto home = homes_.find(entry);
  return home != homes_.end() && (home->second.node->entries.size() > 1 || !home->second.node->children.empty());
}

}  // namespace tailor
