#pragma once
/// Lists in pages, as the OpenAI API gives them.

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace tailor {

struct PageQuery {
  std::string after;        // the id of the last element of the page before; empty: the first page
  std::int64_t limit = 20;  // >= 1; what is above the list's own limit is cut to it
  bool newest_first = true;
  std::string owner;  // id of a key: its own alone; empty: everybody's
};

template <typename T>
struct Page {
  std::vector<T> data;
  bool has_more = false;
};

/// {"object": "list", "data": [...], "first_id", "last_id", "has_more"}; `to_json` makes an element, which has an "id".
template <typename T, typename ToJson>
Json page_object(const Page<T>& page, ToJson&& to_json) {
  Json data = Json::array();
  for (const T& element : page.data) data.push_back(to_json(element));
  Json list = {{"object", "list"}, {"data", std::move(data)}};
  list["first_id"] = page.data.empty() ? Json() : list["data"].front()["id"];
  list["last_id"] = page.data.empty() ? Json() : list["data"].back()["id"];
  list["has_more"] = page.has_more;
  return list;
}

}  // namespace tailor
