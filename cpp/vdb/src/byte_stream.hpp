// Writing and reading the stored formats: little endian, lengths before contents, every read checked. Internal.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "sage/common/error.hpp"

namespace sage::vdb {

static_assert(std::endian::native == std::endian::little, "the stored formats are little endian");

class ByteWriter {
public:
    ByteWriter() = default;
    // Writes into memory that is there already: take() gives it back.
    explicit ByteWriter(std::vector<std::byte> room) : bytes_(std::move(room)) { bytes_.clear(); }

    void raw(std::string_view text) {
        append(text.data(), text.size());
    }
    void u8(std::uint8_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
    template <class T>
    void fixed(const T& value) {
        values(&value, 1);
    }
    // As they lie in memory.
    template <class T>
    void values(const T* first, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        append(first, count * sizeof(T));
    }
    // LEB128: 7 bits a byte, low ones first.
    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7U) {
            u8(static_cast<std::uint8_t>(value | 0x80U));
        }
        u8(static_cast<std::uint8_t>(value));
    }
    void text(std::string_view value) {
        varint(value.size());
        raw(value);
    }
    void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
    [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

private:
    void append(const void* first, std::size_t count) {
        if (count > 0) {
            const std::size_t end = bytes_.size();
            bytes_.resize(end + count);
            std::memcpy(bytes_.data() + end, first, count);
        }
    }

    std::vector<std::byte> bytes_;
};

// Throws `Failure` (a class with a constructor from a message) that names what was read and where.
template <class Failure>
class ByteReader {
public:
    ByteReader(std::span<const std::byte> bytes, const char* what) : bytes_(bytes), what_(what) {}

    [[noreturn]] void fail(const std::string& problem) const {
        throw Failure(std::string(what_) + ": " + problem + " (at byte " + std::to_string(at_) + " of " +
                      std::to_string(bytes_.size()) + ")");
    }
    void require(bool holds, const char* problem) const {
        if (!holds) {
            fail(problem);
        }
    }
    [[nodiscard]] std::string_view raw(std::size_t count) {
        require(count <= left(), "it ends too early");
        const auto* first = reinterpret_cast<const char*>(bytes_.data()) + at_;
        at_ += count;
        return {first, count};
    }
    [[nodiscard]] std::uint8_t u8() { return static_cast<std::uint8_t>(raw(1)[0]); }
    template <class T>
    [[nodiscard]] T fixed() {
        T value;
        values(&value, 1);
        return value;
    }
    template <class T>
    void values(T* first, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        require_left(count, sizeof(T));
        if (count > 0) {  // a null pointer must not reach memcpy
            std::memcpy(first, raw(count * sizeof(T)).data(), count * sizeof(T));
        }
    }
    // Before anything of that size is allocated.
    void require_left(std::size_t count, std::size_t size) const {
        if (size != 0 && count > left() / size) {
            fail("it ends too early, " + std::to_string(count) + " values of " + std::to_string(size) +
                 " bytes were expected and " + std::to_string(left()) + " bytes are left");
        }
    }
    // At most `limit`, and written in as few bytes as can be: one content has one form.
    [[nodiscard]] std::uint64_t varint(std::uint64_t limit) {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint64_t part = u8();
            require(shift < 63 || part <= 1, "a number has too many bits");
            value |= (part & 0x7FU) << shift;
            if (part < 0x80) {
                require(part != 0 || shift == 0, "a number is longer than it need be");
                require(value <= limit, "a number is larger than it can be");
                return value;
            }
        }
        fail("a number has too many bits");
    }
    // A count of things of which each takes at least `each` bytes: a hostile one cannot make us allocate.
    [[nodiscard]] std::size_t count(std::size_t limit, std::size_t each = 1) {
        const auto value = static_cast<std::size_t>(varint(limit));
        require(each == 0 || value <= left() / each, "it ends too early");
        return value;
    }
    [[nodiscard]] std::string_view text(std::size_t limit) { return raw(count(limit)); }
    void finish() const { require(at_ == bytes_.size(), "there is more behind its end"); }
    [[nodiscard]] std::size_t left() const noexcept { return bytes_.size() - at_; }

private:
    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    const char* what_;
};

}  // namespace sage::vdb
