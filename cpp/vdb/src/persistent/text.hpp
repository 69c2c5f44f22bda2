// Strings that many places share. Internal.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <utility>

#include "persistent/ref.hpp"

namespace sage::vdb::persistent {

struct Text : Node {
    explicit Text(std::string_view from) : value(from) {}
    std::string value;
};

// Ordered and compared by bytes, which for UTF-8 is the order of code points.
class TextRef {
public:
    TextRef() = default;
    explicit TextRef(std::string_view value) : text_(make_node<Text>(value)) {}
    [[nodiscard]] std::string_view view() const noexcept { return text_->value; }
    [[nodiscard]] const Text* get() const noexcept { return text_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(text_); }
    bool operator==(const TextRef& other) const noexcept {
        return text_ == other.text_ || (text_ && other.text_ && view() == other.view());
    }
    bool operator<(const TextRef& other) const noexcept { return text_.get() != other.text_.get() && view() < other.view(); }

private:
    Ref<Text> text_;
};

inline bool operator<(const TextRef& left, std::string_view right) noexcept { return left.view() < right; }
inline bool operator<(std::string_view left, const TextRef& right) noexcept { return left < right.view(); }

}  // namespace sage::vdb::persistent
