ALTER USER root@localhost IDENTIFIED BY 'correct-horse';
CREATE DATABASE shop;
CREATE TABLE shop.orders (n bigint PRIMARY KEY) ENGINE = InnoDB;
CREATE TABLE shop.notes (n bigint) ENGINE = MyISAM;
CREATE TABLE shop.marks (n bigint) ENGINE = Aria;
CREATE USER writer@'%' IDENTIFIED BY 'battery';
GRANT INSERT ON shop.* TO writer@'%';
